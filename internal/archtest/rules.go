package archtest

// Module is the path of this module.
const Module = "github.com/shoal-project/shoal"

// Room is a directory of packages that stands on a line.
type Room struct {
	Path string // relative to the module
	Line int
}

// The lines that have no number in the architecture's table.
const (
	// Tools is the line of what only tests import.
	Tools = 100
	// Programs is the line of the main packages.
	Programs = 11
	// Client is the line of the command line client, which shares nothing with the daemon but the words.
	Client = 8
)

// Rooms is the table of the architecture. A package that belongs to none is an error.
func Rooms() []Room {
	return []Room{
		{"api", 0}, {"internal/errs", 0}, {"internal/clock", 0}, {"internal/units", 0},
		{"client", 1}, {"internal/fsroot", 1}, {"internal/fsmount", 1}, {"internal/run", 1}, {"internal/lifecycle", 1}, {"internal/schema", 1}, {"internal/idmap", 1},
		{"kvstore", 2}, {"elastic", 2}, {"zdb", 2},
		{"internal/state", 3},
		{"identity", 4}, {"world", 4},
		{"cluster", 5}, {"internal/op", 5}, {"monitor", 5},
		{"storage", 6}, {"network", 6}, {"image", 6},
		{"instance", 7},
		{"provision", 8}, {"internal/cli", Client},
		{"internal/rest", 9}, {"internal/ui", 9},
		{"internal/daemon", 10},
		{"cmd/shoald", Programs}, {"cmd/shoal", Programs}, {"cmd/shoal-shim", Programs}, {"cmd/shoal-agent", Programs},
		{"internal/testring", Tools}, {"internal/archtest", Tools}, {"test", Tools},
		{"kvstore/kvtest", Tools}, {"kvstore/etcd/etcdtest", Tools}, {"storage/drivertest", Tools}, {"instance/drivertest", Tools}, {"instance/driver/drivertest", Tools},
	}
}

// Guard says who may import a package. Paths without a dot in their first part are of the standard library; paths of
// this module are relative to it. Each covers what is below it.
type Guard struct {
	Package string
	From    []string
	Reason  string
}

// OnlyFrom lists the packages that have a door.
func OnlyFrom() []Guard {
	const daemonOnly = "the daemon composes the house: it alone knows which drivers there are"
	network := []string{"network", "instance/oci"}
	const nets = "the host's network is changed in one room, and where a container's interface is moved in"
	etcd := []string{"kvstore/etcd", "elastic"}
	const backend = "everything else speaks to kvstore, so that it runs on the memory backend too"
	return []Guard{
		{"os/exec", []string{"internal/run", "cmd/shoal-shim", "cmd/shoal-agent", "internal/testring", "kvstore/etcd/etcdtest", "test"},
			"host programs are run through one door: no shell, guarded operands, bounded output and time; the shim and the agent are programs of their own"},
		{"go.etcd.io", etcd, backend},
		{"github.com/vishvananda/netlink", network, nets},
		{"github.com/vishvananda/netns", network, nets},
		{"github.com/mdlayher/netlink", network, nets},
		{"github.com/google/nftables", []string{"network"}, "one table of rules, replaced in one transaction, by one room"},
		{"storage/btrfs", []string{"internal/daemon"}, daemonOnly},
		{"storage/dir", []string{"internal/daemon"}, daemonOnly},
		{"instance/oci", []string{"internal/daemon"}, daemonOnly},
		{"instance/oci/shimproto", []string{"instance/oci", "cmd/shoal-shim"}, "the words between the driver and the shim"},
		{"instance/oci/agentproto", []string{"instance/oci", "cmd/shoal-agent"}, "the words between the driver and the agent in a guest"},
		{"instance/qemu", []string{"internal/daemon"}, daemonOnly},
		{"instance/driver/fake", []string{"internal/daemon", "test"}, daemonOnly},
		{"kvstore/etcd", []string{"internal/daemon", "test/backends"}, daemonOnly},
		{"elastic", []string{"internal/daemon", "test/backends", "test/processes"}, daemonOnly},
		{"internal/rest", []string{"internal/daemon"}, "business rules never call back into the protocol"},
		{"internal/ui", []string{"internal/daemon"}, "as for rest"},
		{"internal/daemon", []string{"cmd/shoald"}, "nothing depends on the composition"},
		{"internal/cli", []string{"cmd/shoal"}, "the client's commands are no library, client is"},
		{"testing", []string{"internal/testring", "internal/archtest", "kvstore/kvtest", "kvstore/etcd/etcdtest", "storage/drivertest", "instance/drivertest", "instance/driver/drivertest", "test"},
			"what only tests need stays out of the daemon"},
		{"unsafe", []string{"network", "instance/oci", "internal/fsmount", "internal/fsroot", "storage", "image", "cmd/shoal-shim", "cmd/shoal-agent"},
			"only where the kernel's interfaces have no safe form"},
	}
}

// Diet says what a package may import of this module and of others, besides the standard library.
type Diet struct {
	Package string
	May     []string
	Reason  string
}

// OnlyThese lists the packages that are kept small.
func OnlyThese() []Diet {
	return []Diet{
		{"api", nil, "others import it to speak to us; it must cost them nothing"},
		{"internal/errs", nil, "everything imports it"},
		{"internal/clock", nil, "everything imports it"},
		{"internal/units", nil, "the client's commands import it"},
		{"client", []string{"api", "github.com/coder/websocket"}, "a library for others: the words and a websocket"},
		{"internal/cli", []string{"api", "client", "internal/units", "internal/schema", "github.com/spf13", "github.com/mattn/go-runewidth",
			"golang.org/x/term", "golang.org/x/sys", "go.yaml.in/yaml/v3"}, "the client must stay small and start at once; it shares only words with the daemon"},
		{"cmd/shoald", []string{"internal/daemon"}, "flags, configuration, daemon.Run"},
		{"cmd/shoal", []string{"internal/cli"}, "one call"},
		{"cmd/shoal-shim", []string{"instance/oci/shimproto", "golang.org/x/sys"}, "one runs for every container, for as long as that runs"},
		{"cmd/shoal-agent", []string{"instance/oci/agentproto", "golang.org/x/sys", "github.com/pkg/sftp", "github.com/kr/fs"}, "it runs inside guests and must start in milliseconds"},
	}
}

// Limits on the shape of code that is not a test.
const (
	MaxFileLines = 600
	MaxFuncLines = 100
)
