package config

import (
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/schema"
)

// Any checks keys of every type of instance: profiles may carry keys of both, an instance ignores those of the other.
const Any = schema.AnyScope

// Key is one row of the table of configuration keys.
type Key struct {
	schema.Key
	Planned bool     // known, not implemented: only Neutral values are accepted
	Neutral []string // values of a planned key that change nothing
}

// Keys returns the table, sorted by name.
func Keys() []Key { return slices.Clone(rows) }

// Schema returns the same keys without what is said about planned ones.
func Schema() *schema.Table { return table }

const (
	container = api.TypeContainer
	vm        = api.TypeVirtualMachine
)

var (
	rows   = allRows()
	table  = schema.New("", plainKeys(rows)...)
	byName = indexed(rows)
)

func plainKeys(rows []Key) []schema.Key {
	out := make([]schema.Key, len(rows))
	for i, r := range rows {
		out[i] = r.Key
	}
	return out
}

func indexed(rows []Key) map[string]Key {
	out := make(map[string]Key, len(rows))
	for _, r := range rows {
		out[r.Name] = r
	}
	return out
}

// Find returns the row that a configuration key belongs to, for an instance of a type (api.TypeContainer, …) or [Any].
func Find(name, scope string) (Key, bool) {
	if IsVolatile(name) {
		name = volatileRow(name)
	}
	k, ok := table.Lookup(name, scope)
	return byName[k.Name], ok
}

// IsVolatile reports whether a key belongs to the server.
func IsVolatile(key string) bool { return strings.HasPrefix(key, "volatile.") }

// volatileRow takes the dots out of the name of a device in a key such as volatile.eth0.100.hwaddr: in the table a device is
// one component.
func volatileRow(key string) string {
	if _, exact := byName[key]; exact {
		return key
	}
	rest := strings.TrimPrefix(key, "volatile.")
	end := strings.LastIndexByte(rest, '.')
	for _, two := range []string{".last_state.", ".mig.uuid", ".vgpu.uuid"} {
		if i := strings.LastIndex(rest, two); i > 0 {
			end = i
		}
	}
	if end < 0 {
		return key
	}
	return "volatile." + strings.ReplaceAll(rest[:end], ".", "-") + rest[end:]
}

// allRows is the table. Live means that a running instance gets the new value at once.
func allRows() []Key {
	rows := slices.Concat(bootKeys(), limitKeys(), securityKeys(), freeKeys(), volatileKeys(), plannedKeys())
	slices.SortFunc(rows, func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

func bootKeys() []Key {
	seconds := schema.Int(0, 1<<31-1)
	return []Key{
		key("boot.autostart", "", false, schema.Bool(), "", "start with the daemon; not set: when it ran before"),
		key("boot.autostart.delay", "", false, seconds, "0", "seconds to wait after the start before the next priority"),
		key("boot.autostart.priority", "", false, schema.Int(0, 1<<31-1), "0", "higher starts earlier"),
		key("boot.autorestart", "", true, schema.OneOf("true", "false", "on-failure"), "false", "restart when it ends by itself: always, or only with an exit code other than 0"),
		key("boot.stop.priority", "", false, schema.Int(0, 1<<31-1), "0", "higher stops earlier when the host shuts down"),
		key("boot.host_shutdown_timeout", "", false, seconds, "30", "seconds that a clean stop may take when the host shuts down"),
		key("cloud-init.network-config", "", false, schema.Text(maxValue), "", "cloud-init network configuration"),
		key("cloud-init.user-data", "", false, schema.Text(maxValue), "", "cloud-init user data"),
		key("cloud-init.vendor-data", "", false, schema.Text(maxValue), "", "cloud-init vendor data"),
		key("cluster.evacuate", "", false, schema.OneOf("auto", "migrate", "live-migrate", "stop"), "auto", "what happens when its member is evacuated"),
	}
}

func limitKeys() []Key {
	keys := []Key{
		key("limits.cpu", "", true, cpus(), "", "number of CPUs, or a set of them such as 0-3,7"),
		key("limits.cpu.allowance", container, true, allowance(), "100%", "share of CPU time when others want it too (50%), or a hard limit (25ms/100ms)"),
		key("limits.cpu.priority", container, true, schema.Int(0, 10), "10", "between instances with the same share: who is served better"),
		key("limits.memory", "", true, memory(), "", "bytes (512MiB) or a part of the host's memory (50%)"),
		key("limits.processes", container, true, schema.Int(0, 1<<31-1), "", "how many processes there may be"),
	}
	for _, name := range rlimitNames() {
		keys = append(keys, key(rlimitPrefix+name, container, false, rlimitType(), "", "RLIMIT_"+strings.ToUpper(name)+" of all processes: 100, 100:200 (soft and hard) or unlimited"))
	}
	return keys
}

func securityKeys() []Key {
	return []Key{
		key("security.nesting", container, false, schema.Bool(), "false", "allow containers inside"),
		key("security.privileged", container, false, schema.Bool(), "false", "run without an own range of user ids"),
		key("security.protection.delete", "", true, schema.Bool(), "false", "refuse to delete the instance"),
	}
}

func freeKeys() []Key {
	return []Key{
		key("environment.*", "", true, schema.Text(32<<10), "", "environment of init and of the commands that exec runs"),
		key("user.*", "", true, schema.Text(maxValue), "", "free for users"),
		key("image.*", "", true, schema.Text(maxValue), "", "properties of the image that the instance was made from"),
		key("snapshots.pattern", "", true, schema.Custom("pattern", "a name with at most one %d and {{ creation_date }}", checkPattern), "snap%d", "names of snapshots"),
		key("snapshots.expiry", "", true, schema.Expiry(), "", "life of snapshots, for example 1d 2H"),
		key("snapshots.schedule", "", true, schema.Custom("schedule", "cron expressions and words such as @daily, separated by \", \"", checkSchedule), "", "when snapshots are made"),
		key("snapshots.schedule.stopped", "", true, schema.Bool(), "false", "make scheduled snapshots of an instance that does not run, too"),
	}
}

func volatileKeys() []Key {
	var out []Key
	for _, name := range []string{
		"apply_template", "apply_quota", "apply_nvram", "base_image", "cloud-init.instance-id", "evacuate.origin", "idmap.base", "idmap.current",
		"idmap.next", "last_state.idmap", "last_state.power", "last_state.ready", "uuid", "uuid.generation", "vsock_id",
		"*.hwaddr", "*.name", "*.host_name", "*.apply_quota", "*.ceph_rbd", "*.mig.uuid", "*.vgpu.uuid", "*.last_state.*",
	} {
		k := key("volatile."+name, "", false, schema.Text(maxValue), "", "kept by the server")
		k.Internal = true
		out = append(out, k)
	}
	return out
}

func key(name, scope string, live bool, t schema.Type, def, doc string) Key {
	return Key{Key: schema.Key{Name: name, Scope: scope, Live: live, Type: t, Default: def, Doc: doc}}
}

// plannedKeys are those of LXD without an effect here yet. The values behind the name are what happens anyway; the first is the default.
func plannedKeys() []Key {
	var out []Key
	add := func(scope string, neutral []string, names ...string) {
		for _, name := range names {
			k := key(name, scope, false, schema.Text(maxValue), "", "not supported yet")
			if len(neutral) > 0 {
				k.Default = neutral[0]
			}
			k.Planned, k.Neutral = true, neutral
			out = append(out, k)
		}
	}
	no, yes := []string{"false", "0", "no", "off"}, []string{"true", "1", "yes", "on"}
	add("", nil, "limits.cpu.nodes", "raw.apparmor", "raw.idmap")
	add("", []string{"5"}, "limits.disk.priority")
	add("", []string{"0"}, "limits.network.priority")
	add("", no, "migration.stateful")

	add(container, nil, "limits.hugepages.64KB", "limits.hugepages.1MB", "limits.hugepages.2MB", "limits.hugepages.1GB")
	add(container, []string{"hard"}, "limits.memory.enforce")
	add(container, yes, "limits.memory.swap")
	add(container, []string{"10"}, "limits.memory.swap.priority")
	add(container, nil, "linux.kernel_modules", "linux.sysctl.*", "raw.lxc", "raw.seccomp")
	add(container, no, "migration.incremental.memory")
	add(container, []string{"70"}, "migration.incremental.memory.goal")
	add(container, []string{"10"}, "migration.incremental.memory.iterations")
	add(container, no, "nvidia.runtime")
	add(container, nil, "nvidia.driver.capabilities", "nvidia.require.cuda", "nvidia.require.driver")
	add(container, no, "security.devlxd", "security.devlxd.images")
	add(container, nil, "security.idmap.base")
	add(container, yes, "security.idmap.isolated") // every unprivileged instance has its own range, which is what isolated asks for
	add(container, []string{"65536"}, "security.idmap.size")
	add(container, yes, "security.protection.shift") // nothing is ever shifted on disk
	add(container, nil, "security.syscalls.allow", "security.syscalls.deny", "security.syscalls.blacklist", "security.syscalls.whitelist")
	add(container, no, "security.syscalls.deny_compat", "security.syscalls.blacklist_compat")
	add(container, yes, "security.syscalls.deny_default", "security.syscalls.blacklist_default")
	for _, call := range []string{"bpf", "bpf.devices", "mknod", "mount", "mount.shift", "sched_setscheduler", "setxattr", "sysinfo"} {
		add(container, no, "security.syscalls.intercept."+call)
	}
	add(container, nil, "security.syscalls.intercept.mount.allowed", "security.syscalls.intercept.mount.fuse")

	add(vm, no, "limits.memory.hugepages", "security.agent.metrics", "agent.nic_config")
	add(vm, nil, "security.secureboot", "raw.qemu", "raw.qemu.conf")
	return out
}
