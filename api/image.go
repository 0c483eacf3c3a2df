package api

// ImagePut is the writable part of an image.
type ImagePut struct {
	AutoUpdate bool              `json:"auto_update" yaml:"auto_update"`
	Properties map[string]string `json:"properties" yaml:"properties"`
	Public     bool              `json:"public" yaml:"public"`
	ExpiresAt  Time              `json:"expires_at" yaml:"expires_at"`
	Profiles   []string          `json:"profiles" yaml:"profiles"`
}

// Image is something that instances are made from.
type Image struct {
	ImagePut     `yaml:",inline"`
	Aliases      []ImageAlias `json:"aliases" yaml:"aliases"`
	Architecture string       `json:"architecture" yaml:"architecture"`
	Cached       bool         `json:"cached" yaml:"cached"`
	Filename     string       `json:"filename" yaml:"filename"`
	Fingerprint  string       `json:"fingerprint" yaml:"fingerprint"`
	Size         int64        `json:"size" yaml:"size"` // bytes of the uploaded form
	UpdateSource *ImageSource `json:"update_source,omitempty" yaml:"update_source,omitempty"`
	Type         string       `json:"type" yaml:"type"`
	CreatedAt    Time         `json:"created_at" yaml:"created_at"`
	LastUsedAt   Time         `json:"last_used_at" yaml:"last_used_at"`
	UploadedAt   Time         `json:"uploaded_at" yaml:"uploaded_at"`
}

// ImageAlias is an alias as an image lists it.
type ImageAlias struct {
	Name        string `json:"name" yaml:"name"`
	Description string `json:"description" yaml:"description"`
}

// ImageSource says where an image came from.
type ImageSource struct {
	Alias       string `json:"alias" yaml:"alias"`
	Certificate string `json:"certificate" yaml:"certificate"`
	Protocol    string `json:"protocol" yaml:"protocol"`
	Server      string `json:"server" yaml:"server"`
	ImageType   string `json:"image_type" yaml:"image_type"`
}

// ImagesPost creates an image from something the server can reach.
type ImagesPost struct {
	ImagePut             `yaml:",inline"`
	Filename             string            `json:"filename" yaml:"filename"`
	Source               *ImagesPostSource `json:"source" yaml:"source"`
	CompressionAlgorithm string            `json:"compression_algorithm" yaml:"compression_algorithm"`
	Aliases              []ImageAlias      `json:"aliases" yaml:"aliases"`
}

// ImagesPostSource says what a new image is made from.
type ImagesPostSource struct {
	ImageSource `yaml:",inline"`
	Mode        string `json:"mode" yaml:"mode"`
	Type        string `json:"type" yaml:"type"` // image, instance, snapshot or url
	URL         string `json:"url" yaml:"url"`
	Name        string `json:"name" yaml:"name"`
	Fingerprint string `json:"fingerprint" yaml:"fingerprint"`
	Secret      string `json:"secret" yaml:"secret"`
	Project     string `json:"project" yaml:"project"`
}

// ImageAliasesEntryPut is the writable part of an alias.
type ImageAliasesEntryPut struct {
	Description string `json:"description" yaml:"description"`
	Target      string `json:"target" yaml:"target"` // fingerprint
}

// ImageAliasesEntry is an alias as an object of its own.
type ImageAliasesEntry struct {
	ImageAliasesEntryPut `yaml:",inline"`
	Name                 string `json:"name" yaml:"name"`
	Type                 string `json:"type" yaml:"type"`
}

// ImageAliasesPost creates an alias.
type ImageAliasesPost = ImageAliasesEntry

// ImageAliasesEntryPost renames an alias.
type ImageAliasesEntryPost struct {
	Name string `json:"name" yaml:"name"`
}

// ImageMetadata is metadata.yaml, the file that makes an archive an image.
type ImageMetadata struct {
	Architecture string                            `json:"architecture" yaml:"architecture"`
	CreationDate int64                             `json:"creation_date" yaml:"creation_date"` // seconds since 1970
	ExpiryDate   int64                             `json:"expiry_date" yaml:"expiry_date"`
	Properties   map[string]string                 `json:"properties" yaml:"properties"`
	Templates    map[string]*ImageMetadataTemplate `json:"templates" yaml:"templates"`
}

// ImageMetadataTemplate is a file of the instance written from a template.
type ImageMetadataTemplate struct {
	When       []string          `json:"when" yaml:"when"` // create, copy, rename, start
	CreateOnly bool              `json:"create_only" yaml:"create_only"`
	Template   string            `json:"template" yaml:"template"`
	Properties map[string]string `json:"properties" yaml:"properties"`
}
