package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// searchPath is where programs are looked for, whatever PATH the daemon was started with.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// debianPackage tells which package brings a program, for the error of one that is missing.
func debianPackage(program string) string {
	switch program {
	case "mkfs.btrfs", "btrfs":
		return "btrfs-progs"
	case "mkfs.ext4", "resize2fs", "e2fsck":
		return "e2fsprogs"
	case "mkfs.erofs", "fsck.erofs", "dump.erofs":
		return "erofs-utils"
	case "mksquashfs", "unsquashfs":
		return "squashfs-tools"
	case "nft":
		return "nftables"
	case "ip", "bridge", "tc":
		return "iproute2"
	case "qemu-system-x86_64":
		return "qemu-system-x86"
	case "qemu-img":
		return "qemu-utils"
	case "xz":
		return "xz-utils"
	case "mount", "umount", "losetup", "unshare", "nsenter":
		return "util-linux"
	case "modprobe":
		return "kmod"
	}
	return program // runc, crun, debootstrap, zstd, …: package and program have one name
}

// Host runs programs on this machine.
type Host struct{}

var _ Runner = Host{}

// Look returns the path of a program on the search path, or errs.Unsupported that names the Debian package.
func (Host) Look(name string) (string, error) {
	candidates := []string{name}
	if !filepath.IsAbs(name) {
		candidates = nil
		for _, dir := range filepath.SplitList(searchPath) {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	for _, p := range candidates {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 {
			return p, nil
		}
	}
	base := filepath.Base(name)
	return "", errs.Unsupported("the program %q is missing on this host; install the Debian package %q", name, debianPackage(base))
}

func (h Host) build(c Command) (*exec.Cmd, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	path, err := h.Look(c.Name)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: path, Args: c.Argv(), Dir: c.Dir, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr, ExtraFiles: c.ExtraFiles}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = []string{"PATH=" + searchPath, "HOME=/root", "LANG=C.UTF-8", "LC_ALL=C.UTF-8"}
	for _, k := range c.Inherit {
		if v, ok := os.LookupEnv(k); ok {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	cmd.Env = append(cmd.Env, c.Env...)
	attr := syscall.SysProcAttr{}
	if c.SysProcAttr != nil {
		attr = *c.SysProcAttr
	}
	if !attr.Setsid {
		attr.Setpgid = true
	}
	cmd.SysProcAttr = &attr
	return cmd, nil
}

// Run implements [Runner].
func (h Host) Run(ctx context.Context, c Command) (Result, error) {
	cmd, err := h.build(c)
	if err != nil {
		return Result{}, err
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no end after %v: %w", timeout, context.DeadlineExceeded))
		defer cancel()
	}
	limit := c.MaxOutput
	if limit == 0 {
		limit = DefaultMaxOutput
	}
	out, tail := &head{max: limit}, &tail{max: stderrTail}
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = tail
	}
	start := time.Now()
	err = runGroup(ctx, cmd)
	res := Result{Stdout: out.buf, Stderr: tail.String(), Duration: time.Since(start)}
	if err != nil {
		return res, asError(c, err, res.Stderr)
	}
	if out.over {
		return res, errs.TooLarge("%s: more than %d bytes of output", c.Name, limit)
	}
	return res, nil
}

// runGroup runs cmd and kills its whole process group when ctx ends: a program that forked must not
// leave children that nobody knows.
func runGroup(ctx context.Context, cmd *exec.Cmd) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	// A grandchild that keeps our pipe open must not make Wait hang.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	// The watcher stops as soon as the leader is reaped, so the group's number is not signalled after the
	// kernel could have given it to somebody else.
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case <-ctx.Done():
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		case <-done:
		}
	})
	err := cmd.Wait()
	close(done)
	watcher.Wait()
	if ctx.Err() != nil && err != nil {
		return context.Cause(ctx)
	}
	return err
}

func asError(c Command, err error, stderr string) error {
	e := &Error{Command: c.String(), ExitCode: -1, Stderr: stderr, Err: err}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		e.ExitCode = exit.ExitCode()
		e.Err = nil
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			e.Signal = ws.Signal()
		}
	}
	return e
}

type process struct {
	cmd     *exec.Cmd
	command Command
	done    chan struct{}
	err     error // written before done is closed
}

// Start implements [Runner].
func (h Host) Start(ctx context.Context, c Command) (Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cmd, err := h.build(c)
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, asError(c, err, "")
	}
	p := &process{cmd: cmd, command: c, done: make(chan struct{})}
	go func() {
		if err := cmd.Wait(); err != nil {
			p.err = asError(c, err, "")
		}
		close(p.done)
	}()
	return p, nil
}

func (p *process) PID() int                   { return p.cmd.Process.Pid }
func (p *process) Wait() error                { <-p.done; return p.err }
func (p *process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }
