package api

// ProfilePut is the writable part of a profile.
type ProfilePut struct {
	Config      Config  `json:"config" yaml:"config"`
	Description string  `json:"description" yaml:"description"`
	Devices     Devices `json:"devices" yaml:"devices"`
}

// Profile is configuration that instances share.
type Profile struct {
	ProfilePut `yaml:",inline"`
	Name       string   `json:"name" yaml:"name"`
	UsedBy     []string `json:"used_by" yaml:"used_by"`
}

// ProfilesPost creates a profile.
type ProfilesPost struct {
	ProfilePut `yaml:",inline"`
	Name       string `json:"name" yaml:"name"`
}

// ProfilePost renames a profile.
type ProfilePost struct {
	Name string `json:"name" yaml:"name"`
}

// ProjectPut is the writable part of a project.
type ProjectPut struct {
	Config      Config `json:"config" yaml:"config"`
	Description string `json:"description" yaml:"description"`
}

// Project is a set of objects that is kept apart from others.
type Project struct {
	ProjectPut `yaml:",inline"`
	Name       string   `json:"name" yaml:"name"`
	UsedBy     []string `json:"used_by" yaml:"used_by"`
}

// ProjectsPost creates a project.
type ProjectsPost struct {
	ProjectPut `yaml:",inline"`
	Name       string `json:"name" yaml:"name"`
}

// ProjectPost renames a project.
type ProjectPost struct {
	Name string `json:"name" yaml:"name"`
}

// ProjectState is how much of its limits a project uses.
type ProjectState struct {
	Resources map[string]ProjectStateResource `json:"resources" yaml:"resources"`
}

// ProjectStateResource is a limit and what is used of it; a Limit of -1 is none. The keys are capitalised on the wire, as LXD's are.
type ProjectStateResource struct {
	Limit int64
	Usage int64
}

// NetworkPut is the writable part of a network.
type NetworkPut struct {
	Config      Config `json:"config" yaml:"config"`
	Description string `json:"description" yaml:"description"`
}

// Network is a managed network or an interface of the host.
type Network struct {
	NetworkPut `yaml:",inline"`
	Name       string   `json:"name" yaml:"name"`
	Type       string   `json:"type" yaml:"type"` // bridge, physical, loopback, …
	UsedBy     []string `json:"used_by" yaml:"used_by"`
	Managed    bool     `json:"managed" yaml:"managed"`
	Status     string   `json:"status" yaml:"status"`
	Locations  []string `json:"locations" yaml:"locations"`
}

// NetworksPost creates a network.
type NetworksPost struct {
	NetworkPut `yaml:",inline"`
	Name       string `json:"name" yaml:"name"`
	Type       string `json:"type" yaml:"type"` // bridge when empty
}

// NetworkLease is an address that DHCP gave out or will give out.
type NetworkLease struct {
	Hostname string `json:"hostname" yaml:"hostname"`
	Hwaddr   string `json:"hwaddr" yaml:"hwaddr"`
	Address  string `json:"address" yaml:"address"`
	Type     string `json:"type" yaml:"type"` // static, dynamic or gateway
	Location string `json:"location" yaml:"location"`
}

// NetworkState is the state of an interface of the host.
type NetworkState struct {
	Addresses []NetworkStateAddress `json:"addresses" yaml:"addresses"`
	Counters  NetworkCounters       `json:"counters" yaml:"counters"`
	Hwaddr    string                `json:"hwaddr" yaml:"hwaddr"`
	Mtu       int                   `json:"mtu" yaml:"mtu"`
	State     string                `json:"state" yaml:"state"`
	Type      string                `json:"type" yaml:"type"`
	Bridge    *NetworkStateBridge   `json:"bridge" yaml:"bridge"`
}

// NetworkStateAddress is an address of an interface of the host.
type NetworkStateAddress struct {
	Family  string `json:"family" yaml:"family"`
	Address string `json:"address" yaml:"address"`
	Netmask string `json:"netmask" yaml:"netmask"`
	Scope   string `json:"scope" yaml:"scope"`
}

// NetworkStateBridge is what only bridges have.
type NetworkStateBridge struct {
	ID            string   `json:"id" yaml:"id"`
	STP           bool     `json:"stp" yaml:"stp"`
	ForwardDelay  uint64   `json:"forward_delay" yaml:"forward_delay"`
	VLANDefault   uint64   `json:"vlan_default" yaml:"vlan_default"`
	VLANFiltering bool     `json:"vlan_filtering" yaml:"vlan_filtering"`
	UpperDevices  []string `json:"upper_devices" yaml:"upper_devices"`
}

// StoragePoolPut is the writable part of a storage pool.
type StoragePoolPut struct {
	Config      Config `json:"config" yaml:"config"`
	Description string `json:"description" yaml:"description"`
}

// StoragePool is a place where volumes live.
type StoragePool struct {
	StoragePoolPut `yaml:",inline"`
	Name           string   `json:"name" yaml:"name"`
	Driver         string   `json:"driver" yaml:"driver"`
	UsedBy         []string `json:"used_by" yaml:"used_by"`
	Status         string   `json:"status" yaml:"status"` // Created, Pending, Unavailable or Errored
	Locations      []string `json:"locations" yaml:"locations"`
}

// StoragePoolsPost creates a storage pool.
type StoragePoolsPost struct {
	StoragePoolPut `yaml:",inline"`
	Name           string `json:"name" yaml:"name"`
	Driver         string `json:"driver" yaml:"driver"`
}

// ResourcesStoragePool is the space of a storage pool.
type ResourcesStoragePool struct {
	Space  ResourcesUsage `json:"space" yaml:"space"`             // bytes
	Inodes ResourcesUsage `json:"inodes" yaml:"inodes,omitempty"` // zero where the filesystem has no limit
}

// ResourcesUsage is how much of a total is used.
type ResourcesUsage struct {
	Used  uint64 `json:"used" yaml:"used"`
	Total uint64 `json:"total" yaml:"total"`
}

// StorageVolume is a volume of a pool.
type StorageVolume struct {
	Config      Config   `json:"config" yaml:"config"`
	Description string   `json:"description" yaml:"description"`
	Name        string   `json:"name" yaml:"name"`
	Type        string   `json:"type" yaml:"type"` // container, virtual-machine, image or custom
	UsedBy      []string `json:"used_by" yaml:"used_by"`
	Location    string   `json:"location" yaml:"location"`
	ContentType string   `json:"content_type" yaml:"content_type"` // filesystem or block
	Project     string   `json:"project" yaml:"project"`
	CreatedAt   Time     `json:"created_at" yaml:"created_at"`
}

// Warning is something that an administrator should look at.
type Warning struct {
	UUID        string `json:"uuid" yaml:"uuid"`
	Location    string `json:"location" yaml:"location"`
	Project     string `json:"project" yaml:"project"`
	Type        string `json:"type" yaml:"type"`
	Count       int    `json:"count" yaml:"count"`
	FirstSeenAt Time   `json:"first_seen_at" yaml:"first_seen_at"`
	LastSeenAt  Time   `json:"last_seen_at" yaml:"last_seen_at"`
	LastMessage string `json:"last_message" yaml:"last_message"`
	Severity    string `json:"severity" yaml:"severity"`
	Status      string `json:"status" yaml:"status"`
	EntityURL   string `json:"entity_url" yaml:"entity_url"`
}
