package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/agentproto"
)

// startCommand starts a command the way the runtime does: a session of its own, the directory entered as root, HOME from the guest's
// passwd unless it is given, no supplementary groups. It returns the terminal's master, -1 without one.
func startCommand(req agentproto.Request, fds []int) (cmd *command, master int, fail *agentproto.Reply) {
	env := withHome(req.Env, req.UID)
	if req.Cwd != "" {
		if err := unix.Chdir(req.Cwd); err != nil {
			return nil, -1, failed(req, errors.New(agentproto.BadCwd))
		}
		defer unix.Chdir("/")
	}
	path, err := lookPath(req.Args[0], env)
	if err != nil {
		return nil, -1, failed(req, err)
	}
	sys := &syscall.SysProcAttr{
		Setsid: true, Credential: &syscall.Credential{Uid: req.UID, Gid: req.GID},
	}
	files := make([]uintptr, 0, 3)
	for _, fd := range fds {
		files = append(files, uintptr(fd))
	}
	master = -1
	if req.Terminal {
		var slave int
		if master, slave, err = openTerminal(req); err != nil {
			return nil, -1, failed(req, err)
		}
		defer unix.Close(slave)
		sys.Setctty = true // of descriptor 0
		files = []uintptr{uintptr(slave), uintptr(slave), uintptr(slave)}
	}
	if cmd, err = fork(path, req.Args, &syscall.ProcAttr{Env: env, Files: files, Sys: sys}); err != nil {
		if master >= 0 {
			_ = unix.Close(master)
		}
		return nil, -1, failed(req, err)
	}
	return cmd, master, nil
}

// fork starts a process and returns it with its pidfd, which can be waited for without a thread.
func fork(path string, args []string, attr *syscall.ProcAttr) (*command, error) {
	pidfd := -1
	attr.Sys.PidFD = &pidfd
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		return nil, err
	}
	if pidfd < 0 {
		return nil, errors.New("the kernel gives no pidfd")
	}
	if err := unix.SetNonblock(pidfd, true); err != nil {
		return nil, err
	}
	return &command{pid, os.NewFile(uintptr(pidfd), "command")}, nil
}

// startFiles starts ourselves as an SFTP server on a socket: a process of its own, because its umask is another and its memory goes
// with it.
func startFiles(req agentproto.Request, fds []int) (*command, int, *agentproto.Reply) {
	cmd, err := fork("/proc/self/exe", []string{os.Args[0], "sftp"}, &syscall.ProcAttr{
		Env: []string{"GOGC=50", "GOMAXPROCS=2"}, Files: []uintptr{uintptr(fds[0]), uintptr(fds[0]), 1},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, -1, failed(req, err)
	}
	return cmd, -1, nil
}

// failed says why a command was not started, or which code a shell would give.
func failed(req agentproto.Request, err error) *agentproto.Reply {
	r := &agentproto.Reply{N: req.N, State: agentproto.Exited}
	switch {
	case req.Op != agentproto.OpExec:
		r.State, r.Error = agentproto.Failed, err.Error()
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		r.Code = 127
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.ETXTBSY):
		r.Code = 126
	default:
		r.State, r.Error = agentproto.Failed, err.Error()
	}
	return r
}

// lookPath finds a program as the runtime does: along the command's own PATH, as root.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	for dir := range strings.SplitSeq(lookEnv(env, "PATH"), ":") {
		if dir == "" {
			dir = "."
		}
		if path := dir + "/" + name; executable(path) == nil {
			return path, nil
		}
	}
	return "", unix.ENOENT
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

func lookEnv(env []string, key string) string {
	for _, e := range env {
		if k, v, _ := strings.Cut(e, "="); k == key {
			return v
		}
	}
	return ""
}

// withHome adds the home directory of uid, "/" when the guest knows none.
func withHome(env []string, uid uint32) []string {
	if lookEnv(env, "HOME") != "" {
		return env
	}
	out := make([]string, 0, len(env)+1)
	at := -1
	for _, e := range env {
		if strings.HasPrefix(e, "HOME=") {
			at = len(out)
		}
		out = append(out, e)
	}
	home := "/"
	if f, err := openRegular("/etc/passwd", os.O_RDONLY, 0); err == nil {
		home = homeOf(io.LimitReader(f, maxPasswd), uid)
		_ = f.Close()
	}
	if at < 0 {
		return append(out, "HOME="+home)
	}
	out[at] = "HOME=" + home
	return out
}

// maxPasswd bounds what is read of the guest's passwd.
const maxPasswd = 1 << 20

// homeOf returns the home directory of the first line with uid.
func homeOf(passwd io.Reader, uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	s := bufio.NewScanner(passwd)
	for s.Scan() {
		f := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(f) > 5 && f[2] == id && f[0] != "" && f[0][0] != '#' {
			return f[5]
		}
	}
	return "/"
}

// openTerminal makes a terminal in the guest's own devpts. The other end belongs to the command's user.
func openTerminal(req agentproto.Request) (master, slave int, err error) {
	// O_NONBLOCK: something else may lie there, and opening it must not block.
	master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, -1, terminalError{"open /dev/ptmx", err}
	}
	defer func() {
		if err != nil {
			_ = unix.Close(master)
		}
	}()
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, -1, terminalError{"unlock the terminal", err}
	}
	if req.Width > 0 && req.Height > 0 {
		if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: req.Height, Col: req.Width}); err != nil {
			return -1, -1, terminalError{"set the terminal's size", err}
		}
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, -1, terminalError{"open the terminal's other end", errno}
	}
	if req.UID != 0 {
		if err := unix.Fchown(int(peer), int(req.UID), -1); err != nil {
			_ = unix.Close(int(peer))
			return -1, -1, terminalError{"give the terminal to the user", err}
		}
	}
	return master, int(peer), nil
}

// terminalError hides its cause from failed: a missing /dev/ptmx is not a missing command.
type terminalError struct {
	what string
	err  error
}

func (e terminalError) Error() string { return e.what + ": " + e.err.Error() }
