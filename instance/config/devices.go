package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
	"github.com/shoal-project/shoal/internal/units"
)

// maxDevices bounds what one instance may carry.
const maxDevices = 100

// Disk is a disk device: the root or a path of the host.
type Disk struct {
	Name     api.DeviceName
	Path     string       // inside the instance; "/" is the root
	Pool     api.PoolName // of the root only
	Size     int64        // bytes, of the root only, 0: no limit
	Source   string       // host path, absolute and clean
	ReadOnly bool
	Shift    bool
	Optional bool // required=false: a missing source is no error
}

// NIC is a network device on a managed network.
type NIC struct {
	Device  api.DeviceName
	Network api.NetworkName
	Name    string // inside the instance; empty: the next free eth%d
	Host    string // name of the host's end; empty: made up
	HWAddr  string // empty: made up
	MTU     int    // 0: the network's
	IPv4    netip.Addr
	IPv6    netip.Addr
	Ingress int64 // bits per second towards the instance, 0: no limit
	Egress  int64 // bits per second from the instance
}

// SameLink reports whether a and b differ in nothing but what can change while the link is there.
func (n NIC) SameLink(b NIC) bool {
	n.Ingress, n.Egress = b.Ingress, b.Egress
	return n == b
}

// Devices are checked devices, sorted by name.
type Devices struct {
	Root  *Disk // nil when there is none (profiles)
	Disks []Disk
	NICs  []NIC
}

// ParseDevices checks devices and gives them types. It does not ask whether pools, networks and host paths exist.
// Whether a root disk is there is the caller's question: [Devices.NeedRoot].
func ParseDevices(devs api.Devices) (Devices, error) {
	var out Devices
	if len(devs) > maxDevices {
		return out, errs.Invalid("%d devices are too many, %d are allowed", len(devs), maxDevices)
	}
	paths, names := map[string]string{}, map[string]string{}
	for _, raw := range sortedKeys(devs) {
		name, err := api.ParseDeviceName(raw)
		if err != nil {
			return out, err
		}
		o := options{device: raw, left: devs[raw]}
		switch typ := devs[raw]["type"]; typ {
		case "none":
			continue
		case "disk":
			d := parseDisk(name, &o)
			o.unique(paths, d.Path, "path")
			if d.Path == "/" {
				out.Root = &d
			} else {
				out.Disks = append(out.Disks, d)
			}
		case "nic":
			n := parseNIC(name, &o)
			o.unique(names, n.Name, "interface name")
			out.NICs = append(out.NICs, n)
		case "":
			return out, errs.Invalid("device %q: Missing device type", raw)
		case "gpu", "infiniband", "pci", "proxy", "tpm", "unix-block", "unix-char", "unix-hotplug", "usb":
			return out, errs.Unsupported("device %q: type %q is not supported yet; supported are disk, nic and none", raw, typ)
		default:
			return out, errs.Invalid("device %q: Unsupported device type %q; supported are disk, nic and none", raw, typ)
		}
		if o.err != nil {
			return out, o.err
		}
	}
	return out, nil
}

// NeedRoot reports the lack of a root disk.
func (d Devices) NeedRoot() error {
	if d.Root == nil {
		return errs.Invalid("No root device could be found")
	}
	return nil
}

func parseDisk(name api.DeviceName, o *options) Disk {
	d := Disk{Name: name, Path: o.take("path")}
	o.neutral("boot.priority", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
	o.neutral("recursive", "false")
	o.neutral("propagation", "private")
	for _, key := range []string{"raw.mount.options", "limits.read", "limits.write", "limits.max", "size.state", "ceph.cluster_name", "ceph.user_name"} {
		o.neutral(key)
	}
	pool, source := o.take("pool"), o.take("source")
	if d.Path == "/" {
		if source != "" {
			o.fail("the root disk must not have a source")
		}
		if pool == "" {
			o.fail(`the root disk needs a pool`)
			return d
		}
		p, err := api.ParsePoolName(pool)
		o.failed(err)
		d.Pool = p
		if v := o.take("size"); v != "" {
			n, err := units.ParseBytes(v)
			if err != nil {
				o.failed(err)
			}
			d.Size = n
		}
		o.neutral("readonly", "false")
		o.done()
		return d
	}
	if pool != "" {
		o.unsupported("custom storage volumes (pool=) are not supported yet; a host path as source is")
	}
	d.Source = source
	switch {
	case d.Path == "" || !strings.HasPrefix(d.Path, "/") || path.Clean(d.Path) != strings.TrimSuffix(d.Path, "/") || strings.ContainsRune(d.Path, 0):
		o.fail("path %q must be absolute and without . and ..", d.Path)
	case source == "" || !strings.HasPrefix(source, "/") || path.Clean(source) != strings.TrimSuffix(source, "/") && source != "/" || strings.ContainsRune(source, 0):
		o.fail("source %q must be an absolute path of the host, without . and ..", source)
	}
	d.ReadOnly, d.Shift, d.Optional = o.bool("readonly"), o.bool("shift"), o.take("required") != "" && !o.bool("required")
	o.neutral("size")
	o.done()
	return d
}

func parseNIC(name api.DeviceName, o *options) NIC {
	n := NIC{Device: name}
	network, nictype, parent := o.take("network"), o.take("nictype"), o.take("parent")
	switch {
	case network != "" && nictype != "" && nictype != "bridged":
		o.fail(`either "network" or "nictype" can be given`)
	case network != "":
		if parent != "" && parent != network {
			o.fail(`"parent" must not be given with "network"`)
		}
	case nictype == "bridged" && parent != "":
		network = parent
	case nictype == "" || nictype == "bridged":
		o.fail(`needs "network", or nictype=bridged and "parent", naming a managed bridge`)
		return n
	default:
		o.unsupported("nictype %q is not supported yet; supported are network= and nictype=bridged with parent= of a managed bridge", nictype)
		return n
	}
	var err error
	n.Network, err = api.ParseNetworkName(network)
	o.failed(err)
	n.Name, n.Host = o.ifname("name"), o.ifname("host_name")
	if v := o.take("hwaddr"); v != "" {
		mac, err := net.ParseMAC(v)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || slices.Equal(mac, net.HardwareAddr{0, 0, 0, 0, 0, 0}) {
			o.fail("hwaddr %q must be a unicast address such as 00:16:3e:01:02:03", v)
		} else {
			n.HWAddr = mac.String()
		}
	}
	if v := o.take("mtu"); v != "" {
		m, err := strconv.Atoi(v)
		if err != nil || m < 576 || m > 65535 {
			o.fail("mtu %q must be 576–65535", v)
		}
		n.MTU = m
	}
	n.IPv4, n.IPv6 = o.addr("ipv4.address", netip.Addr.Is4), o.addr("ipv6.address", netip.Addr.Is6)
	if n.IPv6.IsValid() {
		o.unsupported("ipv6.address %s is not supported yet: guests give themselves addresses from the router advertisement", n.IPv6)
	}
	n.Ingress, n.Egress = o.rate("limits.ingress"), o.rate("limits.egress")
	if max := o.rate("limits.max"); max > 0 {
		n.Ingress, n.Egress = max, max
	}
	o.neutral("boot.priority", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
	for _, key := range []string{"security.mac_filtering", "security.ipv4_filtering", "security.ipv6_filtering", "security.port_isolation"} {
		o.neutral(key, "false")
	}
	for _, key := range []string{"ipv4.routes", "ipv6.routes", "limits.priority", "security.acls",
		"security.acls.default.ingress.action", "security.acls.default.egress.action", "vlan", "vlan.tagged", "queue.tx.length"} {
		o.neutral(key)
	}
	o.done()
	return n
}

// options takes the options of one device apart and keeps the first error.
type options struct {
	device string
	left   map[string]string
	seen   map[string]bool
	err    error
}

func (o *options) known() map[string]bool {
	if o.seen == nil {
		o.seen = map[string]bool{"type": true}
	}
	return o.seen
}

func (o *options) take(key string) string { o.known()[key] = true; return o.left[key] }

func (o *options) failed(err error) {
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("device %q: %w", o.device, err)
	}
}

func (o *options) fail(format string, a ...any) { o.failed(errs.Invalid(format, a...)) }

func (o *options) unsupported(format string, a ...any) { o.failed(errs.Unsupported(format, a...)) }

// neutral accepts an option that is not implemented when its value changes nothing.
func (o *options) neutral(key string, values ...string) {
	if v := o.take(key); v != "" && !slices.Contains(values, v) {
		o.unsupported("option %q is not supported yet", key)
	}
}

// maxRate is the most that traffic shapers can count, 400 Gbit/s.
const maxRate = 400_000_000_000

// rate takes bits per second; 0 is no limit.
func (o *options) rate(key string) int64 {
	v := o.take(key)
	n, err := units.ParseBits(v)
	switch {
	case err != nil:
		o.fail("%s: %v", key, err)
	case v != "" && (n < 1000 || n > maxRate):
		o.fail("%s %q must be 1kbit–400Gbit", key, v)
	}
	return n
}

func (o *options) bool(key string) bool {
	v := o.take(key)
	b, ok := schema.ParseBool(v)
	if v != "" && !ok {
		o.fail("%s %q must be true or false", key, v)
	}
	return b
}

func (o *options) ifname(key string) string {
	v := o.take(key)
	if v == "" {
		return ""
	}
	if len(v) > 15 || v == "." || v == ".." || v == "lo" || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' || r == '%' }) {
		o.fail("%s %q must be an interface name of 1–15 characters without / : %% and spaces, and not lo", key, v)
	}
	return v
}

func (o *options) addr(key string, family func(netip.Addr) bool) netip.Addr {
	v := o.take(key)
	if v == "" || v == "none" && key == "ipv6.address" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(v)
	if err != nil || !family(a) || a.Zone() != "" || a.IsMulticast() || a.IsUnspecified() || a.Is4In6() {
		o.fail("%s %q must be an address", key, v)
	}
	return a
}

func (o *options) unique(seen map[string]string, value, what string) {
	if value == "" {
		return
	}
	if other, dup := seen[value]; dup {
		o.fail("%s %q is already used by device %q", what, value, other)
	}
	seen[value] = o.device
}

// done refuses what is left over.
func (o *options) done() {
	for _, key := range sortedKeys(o.left) {
		if !o.known()[key] {
			o.fail("Invalid device option %q", key)
		}
		if v := o.left[key]; len(v) > 4096 || strings.ContainsAny(v, "\x00\n\r") {
			o.fail("option %q must be one line of at most 4096 bytes", key)
		}
	}
}
