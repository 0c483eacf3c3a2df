package resources

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
)

// Read describes the host whose root directory is root. Architecture is the kernel's word for it, as in uname -m.
func Read(root fs.FS, architecture string) (api.Resources, error) {
	h := host{root}
	var out api.Resources
	text, err := fs.ReadFile(root, "proc/cpuinfo")
	if err != nil {
		return out, fmt.Errorf("read the processors: %w", err)
	}
	out.CPU = h.cpu(string(text), architecture)
	if text, err = fs.ReadFile(root, "proc/meminfo"); err != nil {
		return out, fmt.Errorf("read the memory: %w", err)
	}
	out.Memory = h.memory(string(text))
	out.PCI.Devices = h.pci()
	out.PCI.Total = uint64(len(out.PCI.Devices))
	out.GPU.Cards = h.gpus()
	out.GPU.Total = uint64(len(out.GPU.Cards))
	out.Network.Cards = h.nics()
	for _, c := range out.Network.Cards {
		out.Network.Total += uint64(max(1, len(c.Ports)))
	}
	out.Storage.Disks = h.disks()
	out.Storage.Total = uint64(len(out.Storage.Disks))
	out.USB.Devices = h.usb()
	out.USB.Total = uint64(len(out.USB.Devices))
	return out, nil
}

// host reads files of one line; what is not there is empty or zero.
type host struct{ root fs.FS }

func (h host) text(elem ...string) string {
	b, err := fs.ReadFile(h.root, path.Join(elem...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number reads a decimal number. A negative one, which the kernel uses for "unknown", is 0.
func (h host) number(elem ...string) uint64 {
	n, _ := strconv.ParseUint(h.text(elem...), 10, 64)
	return n
}

func (h host) hex(elem ...string) uint64 {
	n, _ := strconv.ParseUint(h.text(elem...), 16, 64)
	return n
}

// names lists a directory, sorted; nothing when it is not there.
func (h host) names(elem ...string) []string {
	entries, err := fs.ReadDir(h.root, path.Join(elem...))
	if err != nil {
		return nil
	}
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func (h host) exists(elem ...string) bool {
	_, err := fs.Stat(h.root, path.Join(elem...))
	return err == nil
}

// link is where a symbolic link leads, "" when there is none.
func (h host) link(elem ...string) string {
	target, err := fs.ReadLink(h.root, path.Join(elem...))
	if err != nil {
		return ""
	}
	return target
}

func (h host) linkBase(elem ...string) string {
	if l := h.link(elem...); l != "" {
		return path.Base(l)
	}
	return ""
}

var pciAddress = regexp.MustCompile(`[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]`)

// device describes the PCI device that a device's path goes through, the innermost one.
func (h host) device(devicePath string) api.ResourcesDevice {
	all := pciAddress.FindAllString(devicePath, -1)
	if len(all) == 0 {
		return api.ResourcesDevice{}
	}
	return h.pciDevice(all[len(all)-1])
}

func (h host) pciDevice(address string) api.ResourcesDevice {
	dir := path.Join("sys/bus/pci/devices", address)
	d := api.ResourcesDevice{
		PCIAddress: address, Driver: h.linkBase(dir, "driver"), NUMANode: h.number(dir, "numa_node"),
		VendorID: strings.TrimPrefix(h.text(dir, "vendor"), "0x"), ProductID: strings.TrimPrefix(h.text(dir, "device"), "0x"),
	}
	if d.Driver != "" {
		d.DriverVersion = h.text("sys/module", strings.ReplaceAll(d.Driver, "-", "_"), "version")
	}
	return d
}

func (h host) pci() []api.ResourcesPCIDevice {
	out := []api.ResourcesPCIDevice{}
	for _, address := range h.names("sys/bus/pci/devices") {
		group, _ := strconv.ParseUint(h.linkBase("sys/bus/pci/devices", address, "iommu_group"), 10, 64)
		out = append(out, api.ResourcesPCIDevice{ResourcesDevice: h.pciDevice(address), IOMMUGroup: group})
	}
	return out
}
