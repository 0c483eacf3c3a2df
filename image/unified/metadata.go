package unified

import (
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
)

// Bounds of metadata.yaml beside its size.
const (
	maxProperties = 256
	maxTemplates  = 128
	maxKey        = 255
	maxValue      = 16 << 10
	maxDepth      = 16
)

// architectures maps every name that images use to LXD's name.
var architectures = map[string]string{
	"x86_64": "x86_64", "amd64": "x86_64", "i686": "i686", "i386": "i686", "x86": "i686", "aarch64": "aarch64", "arm64": "aarch64",
	"armv8l": "armv8l", "armv7l": "armv7l", "armhf": "armv7l", "armv6l": "armv6l", "armel": "armv6l", "ppc": "ppc", "powerpc": "ppc",
	"ppc64": "ppc64", "ppc64le": "ppc64le", "ppc64el": "ppc64le", "s390x": "s390x", "mips": "mips", "mips64": "mips64",
	"riscv32": "riscv32", "riscv64": "riscv64", "loongarch64": "loongarch64",
}

// Architecture returns LXD's name of an architecture; errs.InvalidInput for one that nobody knows.
func Architecture(name string) (string, error) {
	if a, ok := architectures[name]; ok {
		return a, nil
	}
	return "", errs.Invalid("unknown architecture %.64q", name)
}

// ParseMetadata reads metadata.yaml. architecture (one that is known) and creation_date are required; keys that
// nobody knows are passed over, as LXD does. Anchors and aliases are refused: no image needs them and bombs are made of
// them. Values are checked so that they can be shown, stored and used as they are: no control characters, template
// names without a slash, targets absolute.
func ParseMetadata(data []byte) (*api.ImageMetadata, error) {
	if len(data) > MaxMetadata {
		return nil, errs.TooLarge("metadata.yaml has %d bytes, at most %d are allowed", len(data), MaxMetadata)
	}
	var doc yaml.Node
	if err := yaml.NewDecoder(strings.NewReader(string(data))).Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errs.Invalid("metadata.yaml is empty")
		}
		return nil, errs.Invalid("metadata.yaml: %v", err)
	}
	if err := checkNode(&doc, maxDepth); err != nil {
		return nil, err
	}
	var m api.ImageMetadata
	if err := doc.Decode(&m); err != nil {
		return nil, errs.Invalid("metadata.yaml: %v", err)
	}
	return &m, check(&m)
}

func checkNode(n *yaml.Node, depth int) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return errs.Invalid("metadata.yaml: line %d: anchors and aliases are not allowed", n.Line)
	}
	if depth == 0 {
		return errs.Invalid("metadata.yaml: line %d: nested too deeply", n.Line)
	}
	for _, c := range n.Content {
		if err := checkNode(c, depth-1); err != nil {
			return err
		}
	}
	return nil
}

func check(m *api.ImageMetadata) error {
	if m.Architecture == "" {
		return errs.Invalid("metadata.yaml: architecture is missing")
	}
	arch, err := Architecture(m.Architecture)
	if err != nil {
		return errs.Invalid("metadata.yaml: %v", err)
	}
	m.Architecture = arch
	if m.CreationDate <= 0 || m.CreationDate > maxDate || m.ExpiryDate < 0 || m.ExpiryDate > maxDate {
		return errs.Invalid("metadata.yaml: creation_date is required and dates are seconds since 1970, at most %d; got creation_date %d and expiry_date %d",
			maxDate, m.CreationDate, m.ExpiryDate)
	}
	if err := CheckProperties(m.Properties); err != nil {
		return errs.Invalid("metadata.yaml: %v", err)
	}
	if len(m.Templates) > maxTemplates {
		return errs.Invalid("metadata.yaml: %d templates, at most %d are allowed", len(m.Templates), maxTemplates)
	}
	for target, t := range m.Templates {
		if err := checkTemplate(target, t); err != nil {
			return errs.Invalid("metadata.yaml: template %.255q: %v", target, err)
		}
	}
	return nil
}

// maxDate is the last second that RFC 3339 can write.
const maxDate = 253402300799

// CheckProperties refuses properties that could not be stored or shown.
func CheckProperties(props map[string]string) error {
	if len(props) > maxProperties {
		return errs.Invalid("%d properties, at most %d are allowed", len(props), maxProperties)
	}
	for k, v := range props {
		if k == "" || len(k) > maxKey || !printable(k, false) {
			return errs.Invalid("property %.255q: keys have 1 to %d bytes and no control characters", k, maxKey)
		}
		if len(v) > maxValue || !printable(v, true) {
			return errs.Invalid("property %q: values have at most %d bytes and no control characters", k, maxValue)
		}
	}
	return nil
}

func printable(s string, lines bool) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) && !(lines && (r == '\n' || r == '\t'))
	}) < 0
}

var templateRE = regexp.MustCompile(`^[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,254}$`)

// CheckTemplateName refuses what is not the plain name of a file in templates/.
func CheckTemplateName(name string) error {
	if !templateRE.MatchString(name) {
		return errs.Invalid("template file %.255q: only letters, digits and the characters _.+- are allowed", name)
	}
	return nil
}

func checkTemplate(target string, t *api.ImageMetadataTemplate) error {
	if t == nil {
		return errs.Invalid("it is empty")
	}
	if !path.IsAbs(target) || path.Clean(target) != target || target == "/" || len(target) > 4095 || !printable(target, false) {
		return errs.Invalid("the target must be a clean absolute path")
	}
	for _, w := range t.When {
		if !slices.Contains([]string{"create", "copy", "rename", "start"}, w) {
			return errs.Invalid("when %.64q is not one of create, copy, rename, start", w)
		}
	}
	if err := CheckProperties(t.Properties); err != nil {
		return err
	}
	return CheckTemplateName(t.Template)
}
