package api

// ServerPut is the writable part of the server.
type ServerPut struct {
	Config map[string]any `json:"config" yaml:"config"`
}

// Server is the reply to GET /1.0. To an untrusted caller only the first fields are sent.
type Server struct {
	ServerPut     `yaml:",inline"`
	APIExtensions []string          `json:"api_extensions" yaml:"api_extensions"`
	APIStatus     string            `json:"api_status" yaml:"api_status"`
	APIVersion    string            `json:"api_version" yaml:"api_version"`
	Auth          string            `json:"auth" yaml:"auth"` // trusted or untrusted
	Public        bool              `json:"public" yaml:"public"`
	AuthMethods   []string          `json:"auth_methods" yaml:"auth_methods"`
	Environment   ServerEnvironment `json:"environment" yaml:"environment"`
}

// ServerEnvironment describes the host, the daemon and what was probed on it.
type ServerEnvironment struct {
	Addresses              []string              `json:"addresses" yaml:"addresses"`
	Architectures          []string              `json:"architectures" yaml:"architectures"`
	Certificate            string                `json:"certificate" yaml:"certificate"`
	CertificateFingerprint string                `json:"certificate_fingerprint" yaml:"certificate_fingerprint"`
	Driver                 string                `json:"driver" yaml:"driver"`                 // "oci | qemu"
	DriverVersion          string                `json:"driver_version" yaml:"driver_version"` // in the order of Driver
	Firewall               string                `json:"firewall" yaml:"firewall"`
	Kernel                 string                `json:"kernel" yaml:"kernel"`
	KernelArchitecture     string                `json:"kernel_architecture" yaml:"kernel_architecture"`
	KernelFeatures         map[string]string     `json:"kernel_features" yaml:"kernel_features"` // feature → true, false or how
	KernelVersion          string                `json:"kernel_version" yaml:"kernel_version"`
	LXCFeatures            map[string]string     `json:"lxc_features" yaml:"lxc_features"`
	OSName                 string                `json:"os_name" yaml:"os_name"`
	OSVersion              string                `json:"os_version" yaml:"os_version"`
	Project                string                `json:"project" yaml:"project"`
	Server                 string                `json:"server" yaml:"server"` // "shoal"
	ServerClustered        bool                  `json:"server_clustered" yaml:"server_clustered"`
	ServerEventMode        string                `json:"server_event_mode" yaml:"server_event_mode"`
	ServerName             string                `json:"server_name" yaml:"server_name"`
	ServerPid              int                   `json:"server_pid" yaml:"server_pid"`
	ServerVersion          string                `json:"server_version" yaml:"server_version"`
	Storage                string                `json:"storage" yaml:"storage"`
	StorageVersion         string                `json:"storage_version" yaml:"storage_version"`
	StorageDrivers         []ServerStorageDriver `json:"storage_supported_drivers" yaml:"storage_supported_drivers"`
	Database               *ServerDatabase       `json:"database,omitempty" yaml:"database,omitempty"` // ours alone
}

// ServerDatabase says where the cluster database is and how it is, as far as this server knows.
type ServerDatabase struct {
	Type      string   `json:"type" yaml:"type"`                               // embedded or etcd
	Config    string   `json:"config,omitempty" yaml:"config,omitempty"`       // file that names the etcd
	Endpoints []string `json:"endpoints,omitempty" yaml:"endpoints,omitempty"` // of the etcd
	State     string   `json:"state" yaml:"state"`                             // connecting, healthy, degraded or failed
	Message   string   `json:"message,omitempty" yaml:"message,omitempty"`     // why it is not healthy
}

// ServerStorageDriver is a storage driver that this host can use. The keys are capitalised on the wire, as LXD's are.
type ServerStorageDriver struct {
	Name    string
	Version string
	Remote  bool
}
