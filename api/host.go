package api

// Resources is the hardware of a host. Lists that this build does not fill are empty, never null.
type Resources struct {
	CPU     ResourcesCPU     `json:"cpu" yaml:"cpu"`
	Memory  ResourcesMemory  `json:"memory" yaml:"memory"`
	GPU     ResourcesGPU     `json:"gpu" yaml:"gpu"`
	Network ResourcesNetwork `json:"network" yaml:"network"`
	Storage ResourcesStorage `json:"storage" yaml:"storage"`
	USB     ResourcesUSB     `json:"usb" yaml:"usb"`
	PCI     ResourcesPCI     `json:"pci" yaml:"pci"`
}

// ResourcesCPU is the processors of a host.
type ResourcesCPU struct {
	Architecture string               `json:"architecture" yaml:"architecture"`
	Sockets      []ResourcesCPUSocket `json:"sockets" yaml:"sockets"`
	Total        uint64               `json:"total" yaml:"total"` // threads
}

// ResourcesCPUSocket is one processor package.
type ResourcesCPUSocket struct {
	Name      string              `json:"name,omitempty" yaml:"name,omitempty"`
	Vendor    string              `json:"vendor,omitempty" yaml:"vendor,omitempty"`
	Socket    uint64              `json:"socket" yaml:"socket"`
	Cache     []ResourcesCPUCache `json:"cache,omitempty" yaml:"cache,omitempty"`
	Cores     []ResourcesCPUCore  `json:"cores" yaml:"cores"`
	Frequency uint64              `json:"frequency,omitempty" yaml:"frequency,omitempty"` // MHz, the mean of its cores

	FrequencyMinimum uint64 `json:"frequency_minimum,omitempty" yaml:"frequency_minimum,omitempty"` // MHz
	FrequencyTurbo   uint64 `json:"frequency_turbo,omitempty" yaml:"frequency_turbo,omitempty"`     // MHz
}

// ResourcesCPUCache is a cache that a core or a socket has.
type ResourcesCPUCache struct {
	Level uint64 `json:"level" yaml:"level"`
	Type  string `json:"type" yaml:"type"` // Data, Instruction or Unified
	Size  uint64 `json:"size" yaml:"size"` // bytes
}

// ResourcesCPUCore is a core of a socket.
type ResourcesCPUCore struct {
	Core      uint64               `json:"core" yaml:"core"`
	Die       uint64               `json:"die" yaml:"die"`
	Threads   []ResourcesCPUThread `json:"threads" yaml:"threads"`
	Frequency uint64               `json:"frequency,omitempty" yaml:"frequency,omitempty"` // MHz
}

// ResourcesCPUThread is what the scheduler calls a CPU.
type ResourcesCPUThread struct {
	ID       int64  `json:"id" yaml:"id"`
	NUMANode uint64 `json:"numa_node" yaml:"numa_node"`
	Thread   uint64 `json:"thread" yaml:"thread"`
	Online   bool   `json:"online" yaml:"online"`
	Isolated bool   `json:"isolated" yaml:"isolated"`
}

// ResourcesMemory is the memory of a host in bytes.
type ResourcesMemory struct {
	Nodes []ResourcesMemoryNode `json:"nodes,omitempty" yaml:"nodes,omitempty"`

	HugepagesTotal uint64 `json:"hugepages_total" yaml:"hugepages_total"`
	HugepagesUsed  uint64 `json:"hugepages_used" yaml:"hugepages_used"`
	HugepagesSize  uint64 `json:"hugepages_size" yaml:"hugepages_size"`
	Used           uint64 `json:"used" yaml:"used"`
	Total          uint64 `json:"total" yaml:"total"`
}

// ResourcesMemoryNode is the memory of a NUMA node in bytes.
type ResourcesMemoryNode struct {
	NUMANode       uint64 `json:"numa_node" yaml:"numa_node"`
	HugepagesUsed  uint64 `json:"hugepages_used" yaml:"hugepages_used"`
	HugepagesTotal uint64 `json:"hugepages_total" yaml:"hugepages_total"`
	Used           uint64 `json:"used" yaml:"used"`
	Total          uint64 `json:"total" yaml:"total"`
}

// ResourcesDevice is what PCI devices, graphics and network cards have in common.
type ResourcesDevice struct {
	Driver        string `json:"driver,omitempty" yaml:"driver,omitempty"`
	DriverVersion string `json:"driver_version,omitempty" yaml:"driver_version,omitempty"`
	NUMANode      uint64 `json:"numa_node" yaml:"numa_node"`
	PCIAddress    string `json:"pci_address,omitempty" yaml:"pci_address,omitempty"`
	VendorID      string `json:"vendor_id,omitempty" yaml:"vendor_id,omitempty"`   // four hexadecimal digits
	ProductID     string `json:"product_id,omitempty" yaml:"product_id,omitempty"` // four hexadecimal digits
}

// ResourcesGPU is the graphics cards of a host.
type ResourcesGPU struct {
	Cards []ResourcesGPUCard `json:"cards" yaml:"cards"`
	Total uint64             `json:"total" yaml:"total"`
}

// ResourcesGPUCard is a graphics card.
type ResourcesGPUCard struct {
	ResourcesDevice `yaml:",inline"`
	DRM             *ResourcesGPUDRM `json:"drm,omitempty" yaml:"drm,omitempty"`
}

// ResourcesGPUDRM is the device files of a graphics card.
type ResourcesGPUDRM struct {
	ID           uint64 `json:"id" yaml:"id"`
	CardName     string `json:"card_name" yaml:"card_name"`
	CardDevice   string `json:"card_device" yaml:"card_device"` // major:minor
	RenderName   string `json:"render_name,omitempty" yaml:"render_name,omitempty"`
	RenderDevice string `json:"render_device,omitempty" yaml:"render_device,omitempty"` // major:minor
}

// ResourcesNetwork is the network cards of a host.
type ResourcesNetwork struct {
	Cards []ResourcesNetworkCard `json:"cards" yaml:"cards"`
	Total uint64                 `json:"total" yaml:"total"`
}

// ResourcesNetworkCard is a network card.
type ResourcesNetworkCard struct {
	ResourcesDevice `yaml:",inline"`
	Ports           []ResourcesNetworkPort `json:"ports,omitempty" yaml:"ports,omitempty"`
}

// ResourcesNetworkPort is an interface of a network card.
type ResourcesNetworkPort struct {
	ID              string `json:"id" yaml:"id"`
	Address         string `json:"address,omitempty" yaml:"address,omitempty"`
	Port            uint64 `json:"port" yaml:"port"`
	Protocol        string `json:"protocol" yaml:"protocol"` // ethernet or infiniband
	AutoNegotiation bool   `json:"auto_negotiation" yaml:"auto_negotiation"`
	LinkDetected    bool   `json:"link_detected" yaml:"link_detected"`
	LinkSpeed       uint64 `json:"link_speed,omitempty" yaml:"link_speed,omitempty"` // Mbit/s
	LinkDuplex      string `json:"link_duplex,omitempty" yaml:"link_duplex,omitempty"`
}

// ResourcesStorage is the disks of a host.
type ResourcesStorage struct {
	Disks []ResourcesStorageDisk `json:"disks" yaml:"disks"`
	Total uint64                 `json:"total" yaml:"total"`
}

// ResourcesStorageDisk is a disk; not a loop device, and nothing else that only the kernel made up.
type ResourcesStorageDisk struct {
	ID         string                          `json:"id" yaml:"id"`         // its name below /dev
	Device     string                          `json:"device" yaml:"device"` // major:minor
	Model      string                          `json:"model,omitempty" yaml:"model,omitempty"`
	Serial     string                          `json:"serial,omitempty" yaml:"serial,omitempty"`
	Type       string                          `json:"type,omitempty" yaml:"type,omitempty"` // nvme, sata, scsi, usb, virtio, mmc
	ReadOnly   bool                            `json:"read_only" yaml:"read_only"`
	Size       uint64                          `json:"size" yaml:"size"` // bytes
	Removable  bool                            `json:"removable" yaml:"removable"`
	NUMANode   uint64                          `json:"numa_node" yaml:"numa_node"`
	PCIAddress string                          `json:"pci_address,omitempty" yaml:"pci_address,omitempty"`
	BlockSize  uint64                          `json:"block_size" yaml:"block_size"` // bytes
	RPM        uint64                          `json:"rpm" yaml:"rpm"`               // 0: does not rotate, 1: rotates at an unknown speed
	Partitions []ResourcesStorageDiskPartition `json:"partitions" yaml:"partitions"`
}

// ResourcesStorageDiskPartition is a part of a disk.
type ResourcesStorageDiskPartition struct {
	ID        string `json:"id" yaml:"id"`
	Device    string `json:"device" yaml:"device"` // major:minor
	ReadOnly  bool   `json:"read_only" yaml:"read_only"`
	Size      uint64 `json:"size" yaml:"size"` // bytes
	Partition uint64 `json:"partition" yaml:"partition"`
}

// ResourcesUSB is the USB devices of a host.
type ResourcesUSB struct {
	Devices []ResourcesUSBDevice `json:"devices" yaml:"devices"`
	Total   uint64               `json:"total" yaml:"total"`
}

// ResourcesUSBDevice is a USB device; not a hub.
type ResourcesUSBDevice struct {
	BusAddress    uint64                  `json:"bus_address" yaml:"bus_address"`
	DeviceAddress uint64                  `json:"device_address" yaml:"device_address"`
	Interfaces    []ResourcesUSBInterface `json:"interfaces" yaml:"interfaces"`
	Vendor        string                  `json:"vendor" yaml:"vendor"`
	VendorID      string                  `json:"vendor_id" yaml:"vendor_id"`
	Product       string                  `json:"product" yaml:"product"`
	ProductID     string                  `json:"product_id" yaml:"product_id"`
	Speed         float64                 `json:"speed" yaml:"speed"` // Mbit/s
}

// ResourcesUSBInterface is a function of a USB device.
type ResourcesUSBInterface struct {
	ClassID    uint64 `json:"class_id" yaml:"class_id"`
	SubclassID uint64 `json:"subclass_id" yaml:"subclass_id"`
	Number     uint64 `json:"number" yaml:"number"`
	Driver     string `json:"driver" yaml:"driver"`
}

// ResourcesPCI is the PCI devices of a host.
type ResourcesPCI struct {
	Devices []ResourcesPCIDevice `json:"devices" yaml:"devices"`
	Total   uint64               `json:"total" yaml:"total"`
}

// ResourcesPCIDevice is a PCI device.
type ResourcesPCIDevice struct {
	ResourcesDevice `yaml:",inline"`
	IOMMUGroup      uint64 `json:"iommu_group" yaml:"iommu_group"`
}
