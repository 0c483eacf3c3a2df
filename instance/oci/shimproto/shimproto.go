// Package shimproto is what the oci driver and shoal-shim say to each other: the files in an instance's run
// directory and the messages on the shim's control socket. It imports the standard library only, because the
// shim stays as small as it can.
//
// # Files in the run directory
//
//	shim.json    [Config], written by the driver before it starts the shim
//	config.json  the runtime's specification, written by the driver
//	shim.pid     [Process] of the shim
//	init.pid     [Process] of the instance's init on the host; there once the runtime has created it
//	exit.json    [Exit], written by the shim when init has ended; its last word
//	control      the socket
//	runtime/     the runtime's own state
//
// Every file is replaced as a whole (written beside, then renamed), so that a reader never sees half of one.
//
// # Control socket
//
// A client sends one [Request] as a line of JSON and gets one [Reply] as a line of JSON. Then the shim closes the connection,
// but for OpAttach, where both sides go on with raw console bytes.
package shimproto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Names of the files in the run directory.
const (
	ConfigFile   = "shim.json"
	SpecFile     = "config.json"
	ShimPIDFile  = "shim.pid"
	InitPIDFile  = "init.pid"
	ExitFile     = "exit.json"
	ControlFile  = "control"
	RuntimeDir   = "runtime"
	ExecFifo     = "exec.fifo" // in the runtime's directory of a container that is created and not yet started
	RuntimeLog   = "create.log"
	ConsoleFile  = "console.log"
	MaxLine      = 4096
	ConsoleBytes = 1 << 20
)

// MountPoint is where a shim puts a small tmpfs, in its own mount namespace, with the root and the shifted mounts in it. On the host it
// is an empty directory. It is not below the run directory, because the guest's root has to get there and may not pass through ours.
const MountPoint = "/run/shoal-mnt"

// RootPath is where the root is mounted.
const RootPath = MountPoint + "/root"

// Config tells a shim what to run.
type Config struct {
	ID      string   `json:"id"`
	Runtime string   `json:"runtime"` // absolute path of the OCI runtime
	Base    uint32   `json:"base"`    // id map; Size 0: none
	Size    uint32   `json:"size"`
	Lower   []string `json:"lower,omitempty"`
	Data    string   `json:"data,omitempty"`
	Path    string   `json:"path,omitempty"`
	Shift   []Shift  `json:"shift,omitempty"`
	Console string   `json:"console"`          // path of the console log
	Agent   bool     `json:"agent,omitempty"`  // descriptor 4 goes to the container's init as its 3
	Cgroup  string   `json:"cgroup,omitempty"` // where the shim itself moves to on hosts with systemd; relative to the hierarchy's root
}

// Shift asks for an id-mapped clone of a host path at MountPoint/Name.
type Shift struct {
	Source string `json:"source"`
	Name   string `json:"name"`
}

// Ops of a [Request].
const (
	OpStatus = "status" // answers when the instance is created
	OpStart  = "start"
	OpAttach = "attach"
	OpResize = "resize"
	OpClear  = "clear" // the console log
	OpExec   = "exec"
	OpSignal = "signal" // to the command of this connection
)

// Request is one order to a shim.
type Request struct {
	Op     string `json:"op"`
	Width  uint16 `json:"width,omitempty"`
	Height uint16 `json:"height,omitempty"`

	Spec     string `json:"spec,omitempty"` // OpExec: name of a file in the run directory with the runtime's process; the shim removes it
	Terminal bool   `json:"terminal,omitempty"`
	Preserve bool   `json:"preserve,omitempty"`
	Signal   int    `json:"signal,omitempty"`
}

// Reply is the answer to a [Request], and what a shim writes to descriptor 3 when the instance is created.
type Reply struct {
	Error string `json:"error,omitempty"`
	PID   int    `json:"pid,omitempty"`

	Exited bool `json:"exited,omitempty"`
	Code   int  `json:"code,omitempty"` // 128+n for a signal
}

// Exit is how init ended.
type Exit struct {
	UnixNano int64 `json:"time"`
	Code     int   `json:"code"` // 128+n for a signal
	Reboot   bool  `json:"reboot"`
}

// Process names a process so that a reused PID is not taken for it: Start is its start time in clock ticks after boot.
type Process struct {
	PID   int
	Start uint64
	Boot  string // boot ID: start times of two boots may be equal
}

func (p Process) String() string { return fmt.Sprintf("%d %d %s\n", p.PID, p.Start, p.Boot) }

// ParseProcess reads what String wrote.
func ParseProcess(s string) (Process, error) {
	f := strings.Fields(s)
	if len(f) != 3 {
		return Process{}, fmt.Errorf("process record %.60q has %d fields, not 3", s, len(f))
	}
	pid, err1 := strconv.Atoi(f[0])
	start, err2 := strconv.ParseUint(f[1], 10, 64)
	if err1 != nil || err2 != nil || pid <= 1 || pid > 1<<22 {
		return Process{}, fmt.Errorf("process record %.60q: want PID, start time and boot ID", s)
	}
	return Process{PID: pid, Start: start, Boot: f[2]}, nil
}

// Identify describes the process that has pid now.
func Identify(pid int) (Process, error) {
	start, err := StartTime(pid)
	if err != nil {
		return Process{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Process{}, err
	}
	return Process{PID: pid, Start: start, Boot: string(bytes.TrimSpace(boot))}, nil
}

// StartTime returns field 22 of /proc/PID/stat; an error when the process is gone or a zombie.
func StartTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything, parentheses and spaces too.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, fmt.Errorf("stat of process %d is malformed", pid)
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return 0, fmt.Errorf("stat of process %d has %d fields", pid, len(f))
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// Alive reports whether the process is still the one that was identified.
func (p Process) Alive() bool {
	if p.PID <= 1 {
		return false
	}
	now, err := Identify(p.PID)
	return err == nil && now == p
}

// WriteFile replaces a file as a whole. It does not survive a power loss, and need not: neither do processes.
func WriteFile(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// WriteJSON replaces a file with v as JSON.
func WriteJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFile(path, b)
}
