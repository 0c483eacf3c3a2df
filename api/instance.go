package api

// Instance types.
const (
	TypeContainer      = "container"
	TypeVirtualMachine = "virtual-machine"
)

// Config is a set of configuration keys.
type Config = map[string]string

// Devices maps device names to their options; "type" is always there.
type Devices = map[string]map[string]string

// InstancePut is the writable part of an instance.
type InstancePut struct {
	Architecture string   `json:"architecture" yaml:"architecture"`
	Config       Config   `json:"config" yaml:"config"`
	Devices      Devices  `json:"devices" yaml:"devices"`
	Ephemeral    bool     `json:"ephemeral" yaml:"ephemeral"`
	Profiles     []string `json:"profiles" yaml:"profiles"` // nil means the default profile at creation, [] none
	Restore      string   `json:"restore,omitempty" yaml:"restore,omitempty"`
	Stateful     bool     `json:"stateful" yaml:"stateful"`
	Description  string   `json:"description" yaml:"description"`
}

// Instance is a container or virtual machine.
type Instance struct {
	InstancePut     `yaml:",inline"`
	CreatedAt       Time       `json:"created_at" yaml:"created_at"`
	ExpandedConfig  Config     `json:"expanded_config,omitempty" yaml:"expanded_config,omitempty"`
	ExpandedDevices Devices    `json:"expanded_devices,omitempty" yaml:"expanded_devices,omitempty"`
	Name            string     `json:"name" yaml:"name"`
	Status          string     `json:"status" yaml:"status"`
	StatusCode      StatusCode `json:"status_code" yaml:"status_code"`
	LastUsedAt      Time       `json:"last_used_at" yaml:"last_used_at"`
	Location        string     `json:"location" yaml:"location"`
	Type            string     `json:"type" yaml:"type"`
	Project         string     `json:"project" yaml:"project"`
}

// InstanceFull is an instance with everything that hangs on it (recursion=2).
type InstanceFull struct {
	Instance  `yaml:",inline"`
	Backups   []InstanceBackup   `json:"backups" yaml:"backups"`
	State     *InstanceState     `json:"state" yaml:"state"`
	Snapshots []InstanceSnapshot `json:"snapshots" yaml:"snapshots"`
}

// InstancesPost creates an instance.
type InstancesPost struct {
	InstancePut  `yaml:",inline"`
	Name         string         `json:"name" yaml:"name"` // empty: a name is made up
	Source       InstanceSource `json:"source" yaml:"source"`
	InstanceType string         `json:"instance_type" yaml:"instance_type"` // cloud flavour such as t2.micro
	Type         string         `json:"type" yaml:"type"`                   // container (default) or virtual-machine
	Start        bool           `json:"start,omitempty" yaml:"start,omitempty"`
}

// InstanceSource says what a new instance is made from.
type InstanceSource struct {
	Type              string            `json:"type" yaml:"type"` // image, migration, copy or none
	Certificate       string            `json:"certificate" yaml:"certificate"`
	Alias             string            `json:"alias,omitempty" yaml:"alias,omitempty"`
	Fingerprint       string            `json:"fingerprint,omitempty" yaml:"fingerprint,omitempty"`
	Properties        map[string]string `json:"properties,omitempty" yaml:"properties,omitempty"`
	Server            string            `json:"server,omitempty" yaml:"server,omitempty"`
	Secret            string            `json:"secret,omitempty" yaml:"secret,omitempty"`
	Protocol          string            `json:"protocol,omitempty" yaml:"protocol,omitempty"`
	BaseImage         string            `json:"base-image,omitempty" yaml:"base-image,omitempty"`
	Mode              string            `json:"mode,omitempty" yaml:"mode,omitempty"`
	Operation         string            `json:"operation,omitempty" yaml:"operation,omitempty"`
	Websockets        map[string]string `json:"secrets,omitempty" yaml:"secrets,omitempty"`
	Source            string            `json:"source,omitempty" yaml:"source,omitempty"`
	Live              bool              `json:"live,omitempty" yaml:"live,omitempty"`
	InstanceOnly      bool              `json:"instance_only,omitempty" yaml:"instance_only,omitempty"`
	ContainerOnly     bool              `json:"container_only,omitempty" yaml:"container_only,omitempty"`
	Refresh           bool              `json:"refresh,omitempty" yaml:"refresh,omitempty"`
	Project           string            `json:"project,omitempty" yaml:"project,omitempty"`
	AllowInconsistent bool              `json:"allow_inconsistent,omitempty" yaml:"allow_inconsistent,omitempty"`
}

// InstancePost renames or moves an instance.
type InstancePost struct {
	Name          string `json:"name" yaml:"name"`
	Migration     bool   `json:"migration" yaml:"migration"`
	Live          bool   `json:"live" yaml:"live"`
	InstanceOnly  bool   `json:"instance_only" yaml:"instance_only"`
	ContainerOnly bool   `json:"container_only" yaml:"container_only"`
	Pool          string `json:"pool" yaml:"pool"`
	Project       string `json:"project" yaml:"project"`
}

// InstanceStatePut changes the power state of an instance.
type InstanceStatePut struct {
	Action   string `json:"action" yaml:"action"`   // start, stop, restart, freeze or unfreeze
	Timeout  int    `json:"timeout" yaml:"timeout"` // seconds, -1 waits for ever
	Force    bool   `json:"force" yaml:"force"`
	Stateful bool   `json:"stateful" yaml:"stateful"`
}

// InstancesPut changes the power state of all instances of a project.
type InstancesPut struct {
	State *InstanceStatePut `json:"state" yaml:"state"`
}

// InstanceState is the runtime state of an instance.
type InstanceState struct {
	Status     string                          `json:"status" yaml:"status"`
	StatusCode StatusCode                      `json:"status_code" yaml:"status_code"`
	Disk       map[string]InstanceStateDisk    `json:"disk" yaml:"disk"`
	Memory     InstanceStateMemory             `json:"memory" yaml:"memory"`
	Network    map[string]InstanceStateNetwork `json:"network" yaml:"network"`
	Pid        int64                           `json:"pid" yaml:"pid"` // 0 when stopped
	Processes  int64                           `json:"processes" yaml:"processes"`
	CPU        InstanceStateCPU                `json:"cpu" yaml:"cpu"`
}

// InstanceStateDisk is the use of one disk device, in bytes.
type InstanceStateDisk struct {
	Usage int64 `json:"usage" yaml:"usage"`
}

// InstanceStateMemory is the memory use of an instance, in bytes.
type InstanceStateMemory struct {
	Usage         int64 `json:"usage" yaml:"usage"`
	UsagePeak     int64 `json:"usage_peak" yaml:"usage_peak"`
	SwapUsage     int64 `json:"swap_usage" yaml:"swap_usage"`
	SwapUsagePeak int64 `json:"swap_usage_peak" yaml:"swap_usage_peak"`
}

// InstanceStateCPU is the processor time used, in nanoseconds.
type InstanceStateCPU struct {
	Usage int64 `json:"usage" yaml:"usage"`
}

// InstanceStateNetwork is one interface inside an instance.
type InstanceStateNetwork struct {
	Addresses []InstanceStateNetworkAddress `json:"addresses" yaml:"addresses"`
	Counters  NetworkCounters               `json:"counters" yaml:"counters"`
	Hwaddr    string                        `json:"hwaddr" yaml:"hwaddr"`
	HostName  string                        `json:"host_name" yaml:"host_name"`
	Mtu       int                           `json:"mtu" yaml:"mtu"`
	State     string                        `json:"state" yaml:"state"` // up or down
	Type      string                        `json:"type" yaml:"type"`   // broadcast, loopback, point-to-point or unknown
}

// InstanceStateNetworkAddress is an address of an interface.
type InstanceStateNetworkAddress struct {
	Family  string `json:"family" yaml:"family"` // inet or inet6
	Address string `json:"address" yaml:"address"`
	Netmask string `json:"netmask" yaml:"netmask"` // prefix length
	Scope   string `json:"scope" yaml:"scope"`     // local, link or global
}

// NetworkCounters are the traffic counters of an interface.
type NetworkCounters struct {
	BytesReceived          int64 `json:"bytes_received" yaml:"bytes_received"`
	BytesSent              int64 `json:"bytes_sent" yaml:"bytes_sent"`
	PacketsReceived        int64 `json:"packets_received" yaml:"packets_received"`
	PacketsSent            int64 `json:"packets_sent" yaml:"packets_sent"`
	ErrorsReceived         int64 `json:"errors_received" yaml:"errors_received"`
	ErrorsSent             int64 `json:"errors_sent" yaml:"errors_sent"`
	PacketsDroppedOutbound int64 `json:"packets_dropped_outbound" yaml:"packets_dropped_outbound"`
	PacketsDroppedInbound  int64 `json:"packets_dropped_inbound" yaml:"packets_dropped_inbound"`
}

// InstanceSnapshot is a snapshot of an instance.
type InstanceSnapshot struct {
	ExpiresAt       Time     `json:"expires_at" yaml:"expires_at"`
	Architecture    string   `json:"architecture" yaml:"architecture"`
	Config          Config   `json:"config" yaml:"config"`
	CreatedAt       Time     `json:"created_at" yaml:"created_at"`
	Devices         Devices  `json:"devices" yaml:"devices"`
	Ephemeral       bool     `json:"ephemeral" yaml:"ephemeral"`
	ExpandedConfig  Config   `json:"expanded_config,omitempty" yaml:"expanded_config,omitempty"`
	ExpandedDevices Devices  `json:"expanded_devices,omitempty" yaml:"expanded_devices,omitempty"`
	LastUsedAt      Time     `json:"last_used_at" yaml:"last_used_at"`
	Name            string   `json:"name" yaml:"name"`
	Profiles        []string `json:"profiles" yaml:"profiles"`
	Stateful        bool     `json:"stateful" yaml:"stateful"`
	Size            int64    `json:"size" yaml:"size"`
}

// InstanceSnapshotsPost makes a snapshot.
type InstanceSnapshotsPost struct {
	Name      string `json:"name" yaml:"name"` // empty: made up from snapshots.pattern
	Stateful  bool   `json:"stateful" yaml:"stateful"`
	ExpiresAt *Time  `json:"expires_at" yaml:"expires_at"` // nil: by snapshots.expiry; the zero time: never
}

// InstanceSnapshotPut is the writable part of a snapshot.
type InstanceSnapshotPut struct {
	ExpiresAt Time `json:"expires_at" yaml:"expires_at"` // the zero time: never
}

// InstanceSnapshotPost renames a snapshot.
type InstanceSnapshotPost struct {
	Name      string `json:"name" yaml:"name"`
	Migration bool   `json:"migration" yaml:"migration"`
	Live      bool   `json:"live,omitempty" yaml:"live,omitempty"`
}

// InstanceBackup is an exported copy of an instance kept on the server.
type InstanceBackup struct {
	Name             string `json:"name" yaml:"name"`
	CreatedAt        Time   `json:"created_at" yaml:"created_at"`
	ExpiresAt        Time   `json:"expires_at" yaml:"expires_at"`
	InstanceOnly     bool   `json:"instance_only" yaml:"instance_only"`
	ContainerOnly    bool   `json:"container_only" yaml:"container_only"`
	OptimizedStorage bool   `json:"optimized_storage" yaml:"optimized_storage"`
}

// InstanceExecPost runs a command in an instance.
type InstanceExecPost struct {
	Command      []string          `json:"command" yaml:"command"`
	WaitForWS    bool              `json:"wait-for-websocket" yaml:"wait-for-websocket"`
	Interactive  bool              `json:"interactive" yaml:"interactive"`
	Environment  map[string]string `json:"environment" yaml:"environment"`
	Width        int               `json:"width" yaml:"width"`
	Height       int               `json:"height" yaml:"height"`
	RecordOutput bool              `json:"record-output" yaml:"record-output"`
	User         uint32            `json:"user" yaml:"user"`
	Group        uint32            `json:"group" yaml:"group"`
	Cwd          string            `json:"cwd" yaml:"cwd"`
}

// InstanceExecControl is a frame of the control websocket of exec and console.
type InstanceExecControl struct {
	Command string            `json:"command" yaml:"command"` // window-resize or signal
	Args    map[string]string `json:"args" yaml:"args"`       // width and height
	Signal  int               `json:"signal" yaml:"signal"`
}

// InstanceConsolePost attaches to the console of an instance.
type InstanceConsolePost struct {
	Width  int    `json:"width" yaml:"width"`
	Height int    `json:"height" yaml:"height"`
	Type   string `json:"type" yaml:"type"` // console or vga
}
