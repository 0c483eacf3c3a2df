// Package driver declares what runs instances: the interface that oci (containers), qemu (virtual
// machines) and fake implement, and that drivertest proves.
//
// # Terms
//
// An instance has a runtime ID ([Spec].ID), unique on this node and stable over restarts. A *process* is
// what runs for it on the host; its lifetime is independent of the daemon's. A driver keeps all
// that it must remember about an instance in [Spec].Dir, so that [Driver.Recover] finds it again.
//
// # Order of calls
//
// Create → (the instance room attaches NICs to [Created].PID's network namespace) → Start → any of
// Signal, Freeze, Unfreeze, Exec, Console, Stats → the process exits by itself or by Kill → the driver
// calls [Deps].OnExit exactly once → Cleanup. A second Create after Cleanup begins anew.
//
// # Crash
//
// The daemon may die between any two calls. Create and Start that were cut off leave something that
// Recover reports or that Cleanup, which is idempotent and also called for IDs that never got far,
// removes. A running instance never notices.
package driver

import (
	"context"
	"io"
	"os"
	"time"
)

// Driver runs instances of one kind on this node. Methods are safe for concurrent use for different
// IDs; the instance room serialises calls that change one instance. Errors carry errs classes:
// NotFound for an ID without a process, Unsupported for what Info says the driver cannot do.
type Driver interface {
	// Info says what the driver is and what it can do on this host; it was probed once at New.
	Info() Info
	// Create prepares everything and leaves the instance's init created but not running.
	Create(ctx context.Context, spec Spec) (Created, error)
	// Start lets a created instance run.
	Start(ctx context.Context, id string) error
	// Shutdown asks init to stop, the way that init understands (see Info); it does not wait.
	Shutdown(ctx context.Context, id string) error
	// Kill ends the instance at once and returns when its process is gone; nil when it already was.
	Kill(ctx context.Context, id string) error
	// Freeze stops all processes of the instance where they are; Unfreeze lets them go on.
	Freeze(ctx context.Context, id string) error
	Unfreeze(ctx context.Context, id string) error
	// Exec starts a command inside a running instance with the guest's own authority.
	Exec(ctx context.Context, id string, req ExecRequest) (Process, error)
	// Console attaches to the instance's console; several may be attached at a time.
	Console(ctx context.Context, id string) (Console, error)
	// ConsoleLog returns what the console printed lately (a ring, ≤ 1 MiB), over several runs, also of an instance without a
	// process and after Cleanup: of the spec it needs ID and LogDir. Empty when there was never any.
	ConsoleLog(ctx context.Context, spec Spec) ([]byte, error)
	// ClearConsoleLog empties the ring.
	ClearConsoleLog(ctx context.Context, spec Spec) error
	// Files opens an SFTP session served inside the guest with the guest root's authority. For a stopped
	// instance (spec given as for Create) the driver serves it from a throw-away environment over the same root.
	Files(ctx context.Context, spec Spec) (io.ReadWriteCloser, error)
	// Stats returns the resource use of a running instance.
	Stats(ctx context.Context, id string) (Stats, error)
	// Cleanup removes what the process left on the host (mounts, cgroups, sockets, run directory), but not
	// the root and not the console log. The instance must not run. Idempotent.
	Cleanup(ctx context.Context, id string) error
	// Recover is called once after a daemon start, before anything else: it lists every instance the driver
	// finds, running or exited while the daemon was away, and watches the running ones again. One that is listed as
	// not running is not given to OnExit as well. Cleanup makes an exited one go from the list.
	Recover(ctx context.Context) ([]Recovered, error)
}

// Limiter is what a driver has that can change the limits of a running instance.
type Limiter interface {
	// SetLimits replaces all limits of a running instance.
	SetLimits(ctx context.Context, id string, limits Limits) error
}

// Info describes a driver on this host.
type Info struct {
	Name     string            // oci, qemu or fake
	Version  string            // of what it drives, for example "runc 1.1.5"
	Type     string            // api.TypeContainer or api.TypeVirtualMachine
	Features map[string]string // what was probed: feature → "true", "false" or which way was chosen
}

// Spec is all that a driver needs to know to create an instance. All paths are absolute and come from fsroot
// or a service, never from a client.
type Spec struct {
	ID         string // runtime ID: [a-z0-9_-]+, ≤ 60 bytes
	Dir        string // the driver's own directory for this instance; exists, mode 0700
	LogDir     string // console.log and runtime logs go here; exists
	Hostname   string
	Root       Root
	IDMap      IDMap // zero: privileged
	Init       []string
	Env        map[string]string
	Mounts     []Mount
	Limits     Limits
	Rlimits    []Rlimit // of init, and with it of all processes; sorted by name
	Nesting    bool     // nested containers: unmasked proc and sysfs
	CgroupView string   // auto, v1 or v2: what the guest sees under /sys/fs/cgroup
}

// Root is the root file system of an instance as layers. The driver stacks them (overlay, each layer id-mapped)
// in the instance's own mount namespace: nothing is copied or chowned and the host's mount table stays clean.
type Root struct {
	Lower []string // read-only trees, top first, owned unshifted (uid 0 is 0)
	Data  string   // directory with upper/ and work/, unshifted
	Path  string   // instead of Lower and Data: a plain tree, used as it is (id-mapped bind)
}

// IDMap is the block of host ids that the guest's 0…Size-1 map to, the same for users and groups.
type IDMap struct {
	Base uint32
	Size uint32
}

// Mount is a host path shown inside the instance.
type Mount struct {
	Source   string
	Target   string
	ReadOnly bool
	Shift    bool // show unshifted host ids as the guest's
}

// Limits are resource limits; zero means none.
type Limits struct {
	MemoryBytes int64
	CPUs        string        // "0-3,7": pin; empty: all
	CPUQuota    time.Duration // per CPUPeriod
	CPUPeriod   time.Duration
	CPUShares   int64 // weight against others under load, 2–262144; the kernel's default is 1024
	Processes   int64
}

// Unlimited is a [Rlimit] without a limit.
const Unlimited = ^uint64(0)

// Rlimit is a limit of setrlimit(2), in the unit that it has there.
type Rlimit struct {
	Name       string // the kernel's in lower case: nofile, memlock, …
	Soft, Hard uint64 // Soft ≤ Hard
}

// Created is the result of Create.
type Created struct {
	PID int // of the instance's init on the host; its network namespace exists
}

// Exit says how an instance's init ended.
type Exit struct {
	Time   time.Time
	Reboot bool // the guest asked for a restart
	Code   int  // exit code, 128+n for a signal
}

// Recovered is an instance found by Recover.
type Recovered struct {
	ID      string
	PID     int
	Running bool
	Frozen  bool
	Started bool   // false: Create finished, Start did not
	CPUs    string // of a running one: where it may run, as in [Limits]; empty: not known
	Exit    Exit   // when not Running
}

// Deps is what every driver gets.
type Deps struct {
	// OnExit is called once for every instance whose process ended, from a goroutine of the driver.
	OnExit func(id string, exit Exit)
}

// ExecRequest is a command to run inside an instance.
type ExecRequest struct {
	Command  []string
	Env      map[string]string
	Cwd      string // empty: the guest's default for the user
	User     uint32
	Group    uint32
	Terminal bool // allocate a terminal; then only Stdin and Stdout of the Process are used, both the terminal
	Width    int
	Height   int
	// Stdin, Stdout and Stderr are used when Terminal is false; nil means /dev/null.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// Process is a command that runs inside an instance.
type Process interface {
	// TTY is the terminal's master side when ExecRequest.Terminal was set, else nil.
	TTY() *os.File
	Resize(width, height int) error
	Signal(sig int) error
	// Wait returns the exit code (128+n for a signal) after all output was delivered.
	// Command not found: 127, not executable: 126, both with a nil error.
	Wait() (int, error)
}

// Console is an attachment to an instance's console.
type Console interface {
	io.ReadWriteCloser
	Resize(width, height int) error
}

// Stats is the resource use of an instance. Sizes in bytes.
type Stats struct {
	CPU        time.Duration
	Memory     int64
	MemoryPeak int64
	Swap       int64
	SwapPeak   int64
	Processes  int64
	InitPID    int
}
