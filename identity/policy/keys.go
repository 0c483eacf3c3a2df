package policy

import (
	"fmt"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
)

// The features: kinds of objects that a project may keep for itself.
const (
	Images   = "features.images"
	Profiles = "features.profiles"
	Volumes  = "features.storage.volumes"
	Buckets  = "features.storage.buckets"
	Networks = "features.networks"
	Zones    = "features.networks.zones"
)

// Features lists them, ordered.
func Features() []string { return []string{Images, Networks, Zones, Profiles, Buckets, Volumes} }

// The words of the restrictions.
const (
	allow        = "allow"
	block        = "block"
	full         = "full"
	managed      = "managed"
	isolated     = "isolated"
	unprivileged = "unprivileged"
)

const restrictedKey = "restricted"

// CheckConfig validates a project's configuration. Keys of LXD and Incus that have no effect here are refused: to ignore them would be
// a lie.
func CheckConfig(cfg map[string]string) error {
	if err := Keys().Validate(cfg, ""); err != nil {
		return err
	}
	for k, v := range cfg {
		if v != "" && (strings.HasPrefix(k, "images.") || strings.HasPrefix(k, "backups.")) {
			return errs.Unsupported("Project configuration key %q is not supported yet", k)
		}
	}
	return nil
}

// Keys returns the table of a project's configuration keys. It never changes.
func Keys() *schema.Table { return table }

var table = newTable()

func newTable() *schema.Table {
	keys := append(featureKeys(), limitKeys()...)
	keys = append(keys, restrictionKeys()...)
	for _, k := range []string{"images.auto_update_cached", "images.auto_update_interval", "images.compression_algorithm",
		"images.default_architecture", "images.remote_cache_expiry", "backups.compression_algorithm"} {
		keys = append(keys, schema.Key{Name: k, Type: schema.String(), Doc: "known, not supported yet"})
	}
	keys = append(keys, schema.Key{Name: "user.*", Type: schema.Text(1 << 16), Live: true, Doc: "free for users"})
	return schema.New("Invalid project configuration key %q", keys...)
}

func featureKeys() []schema.Key {
	key := func(name, def, what string) schema.Key {
		return schema.Key{Name: name, Type: schema.Bool(), Default: def, Live: true,
			Doc: fmt.Sprintf("whether the project has %s of its own instead of the default project's; changes while the project is empty only", what)}
	}
	return []schema.Key{
		key(Images, "false", "images and image aliases"),
		key(Profiles, "false", "profiles"),
		key(Volumes, "false", "custom storage volumes"),
		key(Buckets, "false", "storage buckets"),
		key(Networks, "false", "networks"),
		key(Zones, "false", "DNS zones"),
	}
}

func limitKeys() []schema.Key {
	count := schema.Int(0, 1<<31-1)
	key := func(name string, t schema.Type, doc string) schema.Key {
		return schema.Key{Name: name, Type: t, Live: true, Doc: doc}
	}
	sum := func(what string) string {
		return "sum of " + what + " over the project's instances; each instance must set it then, in itself or in a profile"
	}
	return []schema.Key{
		key(LimitInstances, count, "most instances in the project"),
		key(LimitContainers, count, "most containers in the project"),
		key(LimitVMs, count, "most virtual machines in the project"),
		key(LimitCPU, count, sum("limits.cpu, as numbers,")),
		key(LimitMemory, schema.Size(), sum("limits.memory, as sizes,")),
		key(LimitProcesses, count, sum("limits.processes")),
		key(LimitDisk, schema.Size(), "sum of the sizes of root disks and custom volumes; each must set its size then"),
		key(LimitNetworks, count, "most networks in the project"),
		key(limitPool+"*", schema.Size(), "as limits.disk, in one storage pool; 0 keeps the project out of the pool"),
	}
}

// restrictionKeys have the defaults that hold as soon as "restricted" is true.
func restrictionKeys() []schema.Key {
	bool2 := []string{block, allow}
	key := func(name string, words []string, doc string) schema.Key {
		return schema.Key{Name: "restricted." + name, Type: schema.OneOf(words...), Default: words[0], Live: true, Doc: doc}
	}
	list := func(name, doc string) schema.Key {
		return schema.Key{Name: "restricted." + name, Type: schema.Text(1 << 14), Live: true, Doc: doc}
	}
	idRanges := schema.Type{Name: "list of id ranges", Allowed: "a comma-separated list of ids and ranges such as 1000,2000-2999", Max: 4096,
		Check: func(s string) error { _, err := parseRanges(s); return err }}
	paths := schema.Type{Name: "list of paths", Allowed: "a comma-separated list of absolute paths without . and ..", Max: 1 << 14,
		Check: func(s string) error { _, err := parsePaths(s); return err }}
	keys := []schema.Key{
		{Name: restrictedKey, Type: schema.Bool(), Default: "false", Live: true, Doc: "whether the restrictions hold; each of them is at its strictest when it is not set"},
		key("backups", bool2, "backups of instances and volumes"),
		key("snapshots", bool2, "snapshots of instances and volumes"),
		key("cluster.target", bool2, "choosing the member on which an instance is created"),
		list("cluster.groups", "cluster groups in which instances may be; empty: all"),
		key("containers.interception", []string{block, allow, full}, "interception of system calls; allow leaves out the mounting of file systems"),
		key("containers.lowlevel", bool2, "low-level keys of containers, such as raw.lxc"),
		key("containers.nesting", bool2, "security.nesting"),
		key("containers.privilege", []string{unprivileged, isolated, allow}, "privileged containers; isolated demands that each container has its own range of user ids"),
		key("virtual-machines.lowlevel", bool2, "low-level keys of virtual machines, such as raw.qemu"),
		key("devices.disk", []string{managed, block, allow}, "disks besides the root: managed allows those of a storage pool"),
		{Name: "restricted.devices.disk.paths", Type: paths, Live: true, Doc: "paths of the host below which the sources of disks must be, when restricted.devices.disk is allow; empty: everywhere"},
		key("devices.nic", []string{managed, block, allow}, "network devices: managed allows those that name a managed network"),
		{Name: "restricted.idmap.uid", Type: idRanges, Live: true, Doc: "user ids of the host that raw.idmap may map; empty: none"},
		{Name: "restricted.idmap.gid", Type: idRanges, Live: true, Doc: "group ids of the host that raw.idmap may map; empty: none"},
		list("networks.access", "networks that the project may use; empty: all"),
		list("networks.subnets", "subnets of uplinks that networks of the project may use"),
		list("networks.uplinks", "uplinks that networks of the project may use"),
		list("networks.zones", "DNS zones that the project's networks may use"),
	}
	for _, d := range []string{"gpu", "infiniband", "pci", "proxy", "tpm", "unix-block", "unix-char", "unix-hotplug", "usb"} {
		keys = append(keys, key("devices."+d, bool2, "devices of type "+d))
	}
	return keys
}
