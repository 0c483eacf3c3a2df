package resources_test

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/monitor/resources"
)

// tree makes a file system of lines "path: content" and "path -> target".
func tree(text string) fstest.MapFS {
	m := fstest.MapFS{
		"proc/cpuinfo": {Data: []byte("processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Fast CPU\ncpu MHz\t\t: 2400.5\n\nprocessor\t: 1\nvendor_id\t: GenuineIntel\nmodel name\t: Fast CPU\ncpu MHz\t\t: 2000\n\n")},
		"proc/meminfo": {Data: []byte("MemTotal: 1000 kB\nMemAvailable: 400 kB\nHugePages_Total: 4\nHugePages_Free: 1\nHugepagesize: 2048 kB\n")},
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, target, ok := strings.Cut(line, " -> "); ok {
			m[name] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
		} else if name, content, ok := strings.Cut(line, ": "); ok {
			m[name] = &fstest.MapFile{Data: []byte(content + "\n"), Mode: 0o444}
		}
	}
	return m
}

func TestRead(t *testing.T) {
	got, err := resources.Read(tree(`
		sys/devices/system/cpu/isolated: 1-2
		sys/devices/system/cpu/cpu0/topology/physical_package_id: 0
		sys/devices/system/cpu/cpu0/topology/core_id: 5
		sys/devices/system/cpu/cpu0/topology/die_id: 1
		sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq: 800000
		sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq: 3600000
		sys/devices/system/cpu/cpu0/cache/index0/level: 1
		sys/devices/system/cpu/cpu0/cache/index0/type: Data
		sys/devices/system/cpu/cpu0/cache/index0/size: 32K
		sys/devices/system/cpu/cpu1/topology/physical_package_id: 1
		sys/devices/system/cpu/cpu1/topology/core_id: 5
		sys/devices/system/cpu/cpu1/node1/x: y
		sys/devices/system/cpu/cpu1/online: 1
		sys/devices/system/cpu/cpu2/online: 0
		sys/devices/system/node/node1/meminfo: Node 1 MemTotal: 600 kB
		sys/bus/pci/devices/0000:00:03.0/vendor: 0x1af4
		sys/bus/pci/devices/0000:00:03.0/device: 0x1000
		sys/bus/pci/devices/0000:00:03.0/numa_node: -1
		sys/bus/pci/devices/0000:00:03.0/driver -> ../../../../bus/pci/drivers/virtio-pci
		sys/bus/pci/devices/0000:00:03.0/iommu_group -> ../../../../kernel/iommu_groups/7
		sys/module/virtio_pci/version: 1
		sys/class/net/eth0 -> ../../devices/pci0000:00/0000:00:03.0/virtio2/net/eth0
		sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/type: 1
		sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/address: 02:fc:00:00:00:01
		sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/carrier: 1
		sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/speed: 1000
		sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/duplex: full
		sys/devices/pci0000:00/0000:00:03.0/virtio2/net/eth0/device/driver -> ../../../../../bus/virtio/drivers/virtio_net
		sys/class/net/lo/type: 772
		sys/class/net/veth1/type: 1
		sys/block/loop0/size: 10
		sys/block/nvme0n1 -> ../devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1
		sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/device/model: Disk 3
		sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/dev: 259:0
		sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/size: 2048
		sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/queue/physical_block_size: 4096
		sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p1/partition: 1
		sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p1/dev: 259:1
		sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p1/size: 1024
		sys/class/drm/card1 -> ../../devices/pci0000:00/0000:00:05.0/drm/card1
		sys/class/drm/card1-HDMI-A-1/status: connected
		sys/devices/pci0000:00/0000:00:05.0/drm/card1/dev: 226:1
		sys/devices/pci0000:00/0000:00:05.0/drm/card1/device/drm/renderD128/dev: 226:128
		sys/bus/usb/devices/usb1/idVendor: 1d6b
		sys/bus/usb/devices/usb1/bDeviceClass: 09
		sys/bus/usb/devices/1-2/idVendor: 046d
		sys/bus/usb/devices/1-2/idProduct: c31c
		sys/bus/usb/devices/1-2/bDeviceClass: 00
		sys/bus/usb/devices/1-2/busnum: 1
		sys/bus/usb/devices/1-2/devnum: 12
		sys/bus/usb/devices/1-2/speed: 1.5
		sys/bus/usb/devices/1-2:1.0/bInterfaceClass: 03
		sys/bus/usb/devices/1-2:1.0/bInterfaceSubClass: 0a
		sys/bus/usb/devices/1-2:1.0/bInterfaceNumber: 00
		sys/bus/usb/devices/1-2:1.0/driver -> ../../../../bus/usb/drivers/usbhid
	`), "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	pci := api.ResourcesDevice{Driver: "virtio-pci", DriverVersion: "1", PCIAddress: "0000:00:03.0", VendorID: "1af4", ProductID: "1000"}
	nic := pci
	nic.Driver = "virtio_net"
	want := api.Resources{
		CPU: api.ResourcesCPU{Architecture: "x86_64", Total: 3, Sockets: []api.ResourcesCPUSocket{
			{Name: "Fast CPU", Vendor: "GenuineIntel", Frequency: 2400, FrequencyMinimum: 800, FrequencyTurbo: 3600,
				Cache: []api.ResourcesCPUCache{{Level: 1, Type: "Data", Size: 32768}}, Cores: []api.ResourcesCPUCore{
					{Core: 5, Die: 1, Frequency: 2400, Threads: []api.ResourcesCPUThread{{ID: 0, Online: true}}},
					{Core: 2, Threads: []api.ResourcesCPUThread{{ID: 2, Isolated: true}}},
				}},
			{Name: "Fast CPU", Vendor: "GenuineIntel", Socket: 1, Frequency: 2000, Cores: []api.ResourcesCPUCore{
				{Core: 5, Frequency: 2000, Threads: []api.ResourcesCPUThread{{ID: 1, NUMANode: 1, Online: true, Isolated: true}}}}},
		}},
		Memory: api.ResourcesMemory{Total: 1000 << 10, Used: 600 << 10, HugepagesTotal: 8 << 20, HugepagesUsed: 6 << 20, HugepagesSize: 2 << 20,
			Nodes: []api.ResourcesMemoryNode{{NUMANode: 1, Total: 600 << 10, Used: 600 << 10}}},
		PCI: api.ResourcesPCI{Total: 1, Devices: []api.ResourcesPCIDevice{{ResourcesDevice: pci, IOMMUGroup: 7}}},
		GPU: api.ResourcesGPU{Total: 1, Cards: []api.ResourcesGPUCard{{ResourcesDevice: api.ResourcesDevice{PCIAddress: "0000:00:05.0"},
			DRM: &api.ResourcesGPUDRM{ID: 1, CardName: "card1", CardDevice: "226:1", RenderName: "renderD128", RenderDevice: "226:128"}}}},
		Network: api.ResourcesNetwork{Total: 1, Cards: []api.ResourcesNetworkCard{{ResourcesDevice: nic, Ports: []api.ResourcesNetworkPort{
			{ID: "eth0", Address: "02:fc:00:00:00:01", Protocol: "ethernet", LinkDetected: true, LinkSpeed: 1000, LinkDuplex: "full"}}}}},
		Storage: api.ResourcesStorage{Total: 1, Disks: []api.ResourcesStorageDisk{{ID: "nvme0n1", Device: "259:0", Model: "Disk 3", Type: "nvme",
			Size: 1 << 20, PCIAddress: "0000:00:04.0", BlockSize: 4096,
			Partitions: []api.ResourcesStorageDiskPartition{{ID: "nvme0n1p1", Device: "259:1", Size: 512 << 10, Partition: 1}}}}},
		USB: api.ResourcesUSB{Total: 1, Devices: []api.ResourcesUSBDevice{{BusAddress: 1, DeviceAddress: 12, VendorID: "046d", ProductID: "c31c", Speed: 1.5,
			Interfaces: []api.ResourcesUSBInterface{{ClassID: 3, SubclassID: 10, Driver: "usbhid"}}}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A kernel that tells next to nothing is described by what it tells.
func TestReadLittle(t *testing.T) {
	got, err := resources.Read(tree(""), "aarch64")
	if err != nil {
		t.Fatal(err)
	}
	if got.CPU.Total != 2 || len(got.CPU.Sockets) != 1 || len(got.CPU.Sockets[0].Cores) != 2 || got.Memory.Total == 0 {
		t.Errorf("%+v", got)
	}
	if got.GPU.Cards == nil || got.Network.Cards == nil || got.Storage.Disks == nil || got.USB.Devices == nil || got.PCI.Devices == nil {
		t.Errorf("a list is null: %+v", got)
	}
	for _, name := range []string{"proc/cpuinfo", "proc/meminfo"} {
		m := tree("")
		delete(m, name)
		if _, err := resources.Read(m, ""); err == nil {
			t.Errorf("no error without %s", name)
		}
	}
}

func TestReadThisHost(t *testing.T) {
	got, err := resources.Read(os.DirFS("/"), "x")
	if err != nil {
		t.Fatal(err)
	}
	if got.CPU.Total == 0 || len(got.CPU.Sockets) == 0 || got.Memory.Total == 0 || got.Memory.Used == 0 || got.Memory.Used > got.Memory.Total {
		t.Errorf("%+v", got)
	}
}
