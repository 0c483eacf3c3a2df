package resources

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
)

const (
	sectorSize     = 512 // the unit of sizes below /sys/block, whatever the disk's own is
	typeEthernet   = 1   // ARPHRD_ETHER
	typeInfiniband = 32  // ARPHRD_INFINIBAND
)

// disks are the block devices with hardware behind them.
func (h host) disks() []api.ResourcesStorageDisk {
	out := []api.ResourcesStorageDisk{}
	for _, name := range h.names("sys/block") {
		dir := path.Join("sys/block", name)
		if !h.exists(dir, "device") {
			continue
		}
		at := h.link(dir)
		dev := h.device(at)
		d := api.ResourcesStorageDisk{
			ID: name, Device: h.text(dir, "dev"), Model: h.text(dir, "device/model"), Serial: h.text(dir, "device/serial"), Type: diskType(at),
			ReadOnly: h.number(dir, "ro") == 1, Size: h.number(dir, "size") * sectorSize, Removable: h.number(dir, "removable") == 1,
			NUMANode: dev.NUMANode, PCIAddress: dev.PCIAddress, BlockSize: h.number(dir, "queue/physical_block_size"), RPM: h.number(dir, "queue/rotational"),
			Partitions: []api.ResourcesStorageDiskPartition{},
		}
		for _, part := range h.names(dir) {
			if n := h.number(dir, part, "partition"); n > 0 {
				d.Partitions = append(d.Partitions, api.ResourcesStorageDiskPartition{
					ID: part, Device: h.text(dir, part, "dev"), ReadOnly: h.number(dir, part, "ro") == 1, Size: h.number(dir, part, "size") * sectorSize, Partition: n,
				})
			}
		}
		out = append(out, d)
	}
	return out
}

// diskType tells by the buses on a disk's path how it is attached.
func diskType(at string) string {
	for _, t := range []struct{ part, name string }{{"/usb", "usb"}, {"/nvme", "nvme"}, {"/ata", "sata"}, {"/virtio", "virtio"}, {"/mmc_host", "mmc"}} {
		if strings.Contains(at, t.part) {
			return t.name
		}
	}
	return "scsi"
}

// nics are the network interfaces with hardware behind them, by card.
func (h host) nics() []api.ResourcesNetworkCard {
	out := []api.ResourcesNetworkCard{}
	for _, name := range h.names("sys/class/net") {
		dir := path.Join("sys/class/net", name)
		protocol := map[uint64]string{typeEthernet: "ethernet", typeInfiniband: "infiniband"}[h.number(dir, "type")]
		if !h.exists(dir, "device") || protocol == "" {
			continue
		}
		dev := h.device(h.link(dir))
		if driver := h.linkBase(dir, "device/driver"); driver != "" {
			dev.Driver = driver // of the interface: that of the PCI device may be a bus, as with virtio
		}
		i := slices.IndexFunc(out, func(c api.ResourcesNetworkCard) bool { return c.PCIAddress != "" && c.PCIAddress == dev.PCIAddress })
		if i < 0 {
			i = len(out)
			out = append(out, api.ResourcesNetworkCard{ResourcesDevice: dev})
		}
		port := api.ResourcesNetworkPort{
			ID: name, Address: h.text(dir, "address"), Port: h.number(dir, "dev_port"), Protocol: protocol, LinkDetected: h.number(dir, "carrier") == 1,
		}
		if port.LinkDetected {
			port.LinkSpeed, port.LinkDuplex = h.number(dir, "speed"), h.text(dir, "duplex")
		}
		if port.LinkDuplex == "unknown" {
			port.LinkDuplex = ""
		}
		out[i].Ports = append(out[i].Ports, port)
	}
	return out
}

// gpus are the graphics cards that have a driver.
func (h host) gpus() []api.ResourcesGPUCard {
	out := []api.ResourcesGPUCard{}
	for _, name := range h.names("sys/class/drm") {
		id, err := strconv.ParseUint(strings.TrimPrefix(name, "card"), 10, 64)
		if err != nil { // a connector, or a render node, which is looked up below
			continue
		}
		dir := path.Join("sys/class/drm", name)
		card := api.ResourcesGPUCard{ResourcesDevice: h.device(h.link(dir)), DRM: &api.ResourcesGPUDRM{ID: id, CardName: name, CardDevice: h.text(dir, "dev")}}
		for _, node := range h.names(dir, "device/drm") {
			if strings.HasPrefix(node, "renderD") {
				card.DRM.RenderName, card.DRM.RenderDevice = node, h.text(dir, "device/drm", node, "dev")
			}
		}
		out = append(out, card)
	}
	return out
}

const usbHub = 9 // device class

func (h host) usb() []api.ResourcesUSBDevice {
	out := []api.ResourcesUSBDevice{}
	all := h.names("sys/bus/usb/devices")
	for _, name := range all {
		dir := path.Join("sys/bus/usb/devices", name)
		if !h.exists(dir, "idVendor") || h.hex(dir, "bDeviceClass") == usbHub {
			continue
		}
		speed, _ := strconv.ParseFloat(h.text(dir, "speed"), 64)
		d := api.ResourcesUSBDevice{
			BusAddress: h.number(dir, "busnum"), DeviceAddress: h.number(dir, "devnum"), Vendor: h.text(dir, "manufacturer"), VendorID: h.text(dir, "idVendor"),
			Product: h.text(dir, "product"), ProductID: h.text(dir, "idProduct"), Speed: speed, Interfaces: []api.ResourcesUSBInterface{},
		}
		for _, f := range all {
			if strings.HasPrefix(f, name+":") {
				fdir := path.Join("sys/bus/usb/devices", f)
				d.Interfaces = append(d.Interfaces, api.ResourcesUSBInterface{
					ClassID: h.hex(fdir, "bInterfaceClass"), SubclassID: h.hex(fdir, "bInterfaceSubClass"), Number: h.hex(fdir, "bInterfaceNumber"), Driver: h.linkBase(fdir, "driver"),
				})
			}
		}
		out = append(out, d)
	}
	return out
}
