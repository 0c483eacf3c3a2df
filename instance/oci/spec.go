package oci

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci/shimproto"
	"github.com/shoal-project/shoal/internal/errs"
)

// Cgroup layouts of a host.
const (
	LayoutV1     = "v1"     // one hierarchy per controller, no v2
	LayoutHybrid = "hybrid" // controllers in v1, an empty v2 beside them
	LayoutV2     = "v2"
)

// Facts are what a specification depends on beside the instance: what this host has.
type Facts struct {
	Layout    string   // of cgroups
	Seccomp   bool     // the runtime filters system calls
	Caps      uint64   // our own bounding set: nobody gets more
	NoFile    uint64   // our own hard limit of open files: without CAP_SYS_RESOURCE nobody gets more
	OOMAdjust int      // our own: lower than that may be refused
	Arch      string   // GOARCH
	Devices   []string // of /dev/fuse, /dev/net/tun those that exist
}

// BuildSpec returns the runtime's specification of a system container. It is a pure function; cgroup is the
// group's path. Slices that hold nothing are nil: some runtimes take [] for something else.
func BuildSpec(s driver.Spec, f Facts, cgroup string) (*specs.Spec, error) {
	view, err := cgroupMount(s.CgroupView, f.Layout)
	if err != nil {
		return nil, err
	}
	init := s.Init
	if len(init) == 0 {
		init = []string{"/sbin/init"}
	}
	oom := max(0, f.OOMAdjust)
	out := &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Terminal: true,
			Args:     slices.Clone(init),
			Env:      environment(s.Env, map[string]string{"container": "lxc", "TERM": "linux"}),
			Cwd:      "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities(s, f), Effective: capabilities(s, f), Permitted: capabilities(s, f),
			},
			Rlimits:     rlimits(s.Rlimits, f),
			OOMScoreAdj: &oom,
		},
		Root:     &specs.Root{Path: shimproto.RootPath},
		Hostname: s.Hostname,
		Mounts:   append(baseMounts(s, f), view),
		Linux: &specs.Linux{
			CgroupsPath: cgroup,
			Namespaces:  namespaces(s),
			Resources:   resources(s, f.Layout),
			MaskedPaths: []string{
				"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi",
				"/sys/firmware", "/sys/kernel/debug", "/sys/kernel/tracing",
			},
		},
	}
	if s.IDMap.Size > 0 {
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: s.IDMap.Base, Size: s.IDMap.Size}}
		out.Linux.UIDMappings, out.Linux.GIDMappings = ids, slices.Clone(ids)
	}
	if f.Seccomp {
		out.Linux.Seccomp = seccomp(f.Arch)
	}
	for i, m := range s.Mounts {
		out.Mounts = append(out.Mounts, bind(i, m))
	}
	return out, nil
}

func environment(from, defaults map[string]string) []string {
	env := map[string]string{"PATH": defaultPath}
	maps.Copy(env, defaults)
	maps.Copy(env, from)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func namespaces(s driver.Spec) []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
		{Type: specs.CgroupNamespace}, {Type: specs.NetworkNamespace},
	}
	if s.IDMap.Size > 0 {
		out = append(out, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	return out
}

func baseMounts(s driver.Spec, f Facts) []specs.Mount {
	m := func(dst, typ, src string, opts ...string) specs.Mount {
		return specs.Mount{Destination: dst, Type: typ, Source: src, Options: opts}
	}
	out := []specs.Mount{
		m("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
		m("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=500k"),
		m("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
		m("/dev/shm", "tmpfs", "shm", "nosuid", "nodev", "mode=1777"),
		m("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
		m("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev"),
		m("/run", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=755"),
	}
	for _, d := range f.Devices {
		out = append(out, m(d, "bind", d, "bind", "rw"))
	}
	if s.Nesting {
		// The kernel lets a nested container mount proc and sysfs only while an unmasked one is visible.
		out = append(out,
			m("/dev/.lxc/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
			m("/dev/.lxc/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev"))
	}
	return out
}

// cgroupMount chooses what the guest sees. Automatic is v2 wherever the host has it, also beside v1: newer guests know nothing else
// and older ones accept it. v1 is for guests older than that.
func cgroupMount(view, layout string) (specs.Mount, error) {
	m := specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"nosuid", "noexec", "nodev", "relatime"},
	}
	switch view {
	case "", "auto", "v2":
		if view == "v2" && layout == LayoutV1 {
			return m, errs.Unsupported("cgroup view v2: this host has cgroup v1 only")
		}
		if layout == LayoutHybrid { // "cgroup" would be the runtime's v1 view
			m.Type, m.Source = "cgroup2", "cgroup2"
		}
	case "v1":
		if layout == LayoutV2 {
			return m, errs.Unsupported("cgroup view v1: this host has cgroup v2 only")
		}
	default:
		return m, errs.Invalid("cgroup view %q is none of auto, v1, v2", view)
	}
	return m, nil
}

func bind(i int, mnt driver.Mount) specs.Mount {
	src := mnt.Source
	if mnt.Shift {
		src = shimproto.MountPoint + "/" + mountName(i)
	}
	opts := []string{"rbind", "rw"}
	if mnt.ReadOnly {
		opts[1] = "ro"
	}
	return specs.Mount{Destination: mnt.Target, Type: "bind", Source: src, Options: opts}
}

func mountName(i int) string { return fmt.Sprintf("m%d", i) }

func resources(s driver.Spec, layout string) *specs.LinuxResources {
	r := limits(s.Limits)
	if s.IDMap.Size > 0 {
		// Nodes cannot be made in a user namespace and those that we put there are guarded by their owner; with a list, a device that is
		// added to a running instance could not be opened.
		r.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return r
	}
	r.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"}}
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}, {10, 229}, {10, 200}, {136, -1}} {
		rule := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &d[0], Access: "rwm"}
		if d[1] >= 0 {
			rule.Minor = &d[1]
		}
		r.Devices = append(r.Devices, rule)
	}
	return r
}

func limits(l driver.Limits) *specs.LinuxResources {
	r := &specs.LinuxResources{}
	if l.MemoryBytes > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &l.MemoryBytes}
	}
	if l.CPUs != "" || l.CPUQuota > 0 || l.CPUShares > 0 {
		r.CPU = &specs.LinuxCPU{Cpus: l.CPUs}
		if l.CPUShares > 0 {
			weight := uint64(l.CPUShares)
			r.CPU.Shares = &weight
		}
		if l.CPUQuota > 0 {
			period := uint64(l.CPUPeriod / time.Microsecond)
			if period == 0 {
				period = 100_000
			}
			quota := int64(l.CPUQuota / time.Microsecond)
			r.CPU.Quota, r.CPU.Period = &quota, &period
		}
	}
	if l.Processes > 0 {
		r.Pids = &specs.LinuxPids{Limit: &l.Processes}
	}
	return r
}

// rlimits are what was asked for, and a usual limit of open files where nothing was.
func rlimits(asked []driver.Rlimit, f Facts) []specs.POSIXRlimit {
	out := askedRlimits(asked)
	if !slices.ContainsFunc(asked, func(r driver.Rlimit) bool { return r.Name == "nofile" }) {
		most := min(f.NoFile, 1<<20)
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: min(1024, most), Hard: most})
	}
	return out
}

// askedRlimits are what was asked for: what commands get, as the runtime does not give them init's.
func askedRlimits(asked []driver.Rlimit) (out []specs.POSIXRlimit) {
	for _, r := range asked {
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(r.Name), Soft: r.Soft, Hard: r.Hard})
	}
	return out
}

// capNames are the kernel's capabilities by number.
var capNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
	SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
	MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// capabilities: in a user namespace all, as they hold for what the namespace owns only. A privileged instance goes without those
// that reach the host's kernel.
func capabilities(s driver.Spec, f Facts) []string {
	var out []string
	for i, n := range capNames {
		if s.IDMap.Size == 0 {
			if f.Caps&(1<<i) == 0 {
				continue
			}
			switch n {
			case "SYS_MODULE", "SYS_RAWIO", "SYS_TIME", "MAC_ADMIN", "MAC_OVERRIDE", "SYS_RESOURCE":
				continue
			}
		}
		out = append(out, "CAP_"+n)
	}
	return out
}

// seccomp refuses the few calls that no container needs. A list of what is allowed would cost 12–15 ms for each create and each
// exec, because the runtime compiles it every time.
func seccomp(arch string) *specs.LinuxSeccomp {
	archs := map[string][]specs.Arch{
		"amd64": {specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		"arm64": {specs.ArchAARCH64, specs.ArchARM},
	}[arch]
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Architectures: archs,
		Syscalls: []specs.LinuxSyscall{{
			Names:  []string{"kexec_load", "kexec_file_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"},
			Action: specs.ActErrno,
		}},
	}
}
