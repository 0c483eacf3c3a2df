package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/shimproto"
)

// Descriptors that the driver hands over.
const (
	reportFD = 3
	agentFD  = 4 // with Config.Agent only
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "probe" {
		probe(os.Args[2])
		return
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: shoal-shim DIRECTORY (it is started by shoald)")
		os.Exit(2)
	}
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(8 << 20)
	// A dying daemon or a closing terminal is none of our business; only SIGKILL ends a shim early.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE)
	unix.CloseOnExec(reportFD)
	unix.CloseOnExec(agentFD)
	report := os.NewFile(reportFD, "report")

	s, err := create(os.Args[1], report)
	reply := shimproto.Reply{}
	if err != nil {
		reply.Error = err.Error()
	} else {
		reply.PID = s.init.PID
	}
	b, _ := json.Marshal(reply)
	_, _ = report.Write(append(b, '\n')) // the daemon may have died meanwhile: it will find us by shim.pid
	_ = report.Close()
	if err != nil {
		os.Exit(1)
	}
	s.run()
}

// shim is the state of the one container.
type shim struct {
	cfg     shimproto.Config
	init    shimproto.Process
	console *console
	control *control
	execs   execs
}

// create does all that comes before the container is created, in the order that a reader expects.
func create(dir string, report *os.File) (*shim, error) {
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	s := &shim{}
	b, err := os.ReadFile(shimproto.ConfigFile)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &s.cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", shimproto.ConfigFile, err)
	}
	self, err := shimproto.Identify(os.Getpid())
	if err != nil {
		return nil, err
	}
	if err := shimproto.WriteFile(shimproto.ShimPIDFile, []byte(self.String())); err != nil {
		return nil, err
	}
	// A daemon that died before this point was gone before the file was there: the next one may have looked for it in vain and
	// taken the instance for stopped. Whoever dies from here on is followed by one that finds us.
	if abandoned(report) {
		return nil, errors.New("the daemon that started this shim is gone")
	}
	// The runtime's intermediate processes end at once; init then becomes our child, and only ours to wait for.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	leaveCgroup(s.cfg.Cgroup)
	if s.control, err = listen(); err != nil {
		return nil, err
	}
	if err := mountAll(&s.cfg); err != nil {
		return nil, err
	}
	if err := s.createContainer(); err != nil {
		_ = s.runtime("delete", "--force", s.cfg.ID).Run()
		return nil, err
	}
	return s, nil
}

// abandoned tells whether nobody reads our report any more.
func abandoned(report *os.File) bool {
	p := []unix.PollFd{{Fd: int32(report.Fd())}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLERR != 0
}

// runtime returns a call of the OCI runtime.
func (s *shim) runtime(args ...string) *exec.Cmd {
	c := exec.Command(s.cfg.Runtime, append([]string{"--root", shimproto.RuntimeDir}, args...)...)
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	return c
}

func (s *shim) createContainer() error {
	ptys, err := awaitPTY(consoleSocket, 0, 0)
	if err != nil {
		return err
	}
	defer ptys.close()
	const pidFile = "runtime.pid"
	// A file, not a pipe: the container's first process keeps it open for a moment longer than the runtime.
	out, err := os.OpenFile(shimproto.RuntimeLog, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	args := []string{"create", "--bundle", ".", "--no-new-keyring", "--pid-file", pidFile, "--console-socket", consoleSocket}
	if s.cfg.Agent {
		args = append(args, "--preserve-fds", "1")
	}
	cmd := s.runtime(append(args, s.cfg.ID)...)
	if s.cfg.Agent {
		agent := os.NewFile(agentFD, "agent")
		defer agent.Close()
		cmd.ExtraFiles = []*os.File{agent}
	}
	cmd.Stdout, cmd.Stderr = out, out
	// When we are killed there is nobody for the container that it makes. (The signal comes when our thread ends; Go keeps those.)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s create: %w: %s", s.cfg.Runtime, err, tail(out))
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("pid file of the runtime: %w", err)
	}
	if s.init, err = shimproto.Identify(pid); err != nil {
		return fmt.Errorf("init of the container: %w: %s", err, tail(out))
	}
	pty, err := ptys.receive(5 * time.Second)
	if err != nil {
		return fmt.Errorf("receive the console: %w", err)
	}
	if s.console, err = newConsole(pty, s.cfg.Console); err != nil {
		return err
	}
	if err := delegate(pid, s.cfg.Base, s.cfg.Size); err != nil {
		return fmt.Errorf("delegate cgroups: %w", err)
	}
	return shimproto.WriteFile(shimproto.InitPIDFile, []byte(s.init.String()))
}

func tail(f *os.File) string {
	b := make([]byte, 2048)
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	n, _ := f.ReadAt(b, max(0, st.Size()-int64(len(b))))
	return strings.TrimSpace(string(b[:n]))
}

// run serves until init has ended, writes down how, and removes the container.
func (s *shim) run() {
	go s.console.pump()
	go s.control.serve(s)
	exit := s.waitInit()
	s.console.finish()
	if err := shimproto.WriteJSON(shimproto.ExitFile, exit); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-shim: record exit:", err)
	}
	if out, err := s.runtime("delete", s.cfg.ID).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "shoal-shim: runtime delete: %v: %s\n", err, out)
		_ = s.runtime("delete", "--force", s.cfg.ID).Run()
	}
}

func (s *shim) waitInit() shimproto.Exit {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(s.init.PID, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		e := shimproto.Exit{UnixNano: time.Now().UnixNano(), Code: ws.ExitStatus()}
		if err != nil {
			// Not our child: nobody else reaps it, so it must have been gone before it became ours.
			e.Code = 255
			return e
		}
		if ws.Signaled() {
			// reboot(2) in a PID namespace: the kernel ends init with SIGHUP for a restart, SIGINT for halt and power-off.
			e.Code, e.Reboot = 128+int(ws.Signal()), ws.Signal() == unix.SIGHUP
		}
		return e
	}
}
