package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

const (
	agentPath  = "/proc/self/fd/3" // where the agent finds itself in the guest
	tempDir    = "files"           // below Spec.Dir: the throw-away container's
	tempSuffix = ".files"          // of its ID; no instance's ID has a dot
)

// agentFile is the agent's binary as a sealed file in memory: what runs in a guest is what we checked in, and the guest can neither
// see it in its file system nor change it for others.
type agentFile struct {
	mu sync.Mutex
	f  *os.File
}

func (a *agentFile) get(path string) (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.f != nil {
		return a.f, nil
	}
	src, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errs.Unsupported("the program %q is missing; it is installed beside the daemon", path)
	}
	if err != nil {
		return nil, err
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("shoal-agent", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "shoal-agent")
	defer mem.Close()
	if _, err := io.Copy(mem, src); err != nil {
		return nil, err
	}
	if err := unix.Fchmod(fd, 0o555); err != nil {
		return nil, err
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal the agent: %w", err)
	}
	// Opened again for reading: a descriptor that may write cannot be executed.
	a.f, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	return a.f, err
}

func (a *agentFile) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.f != nil {
		_ = a.f.Close()
		a.f = nil
	}
}

// tempHost is a throw-away container over the root of a stopped instance, shared by its sessions. It stays in
// Driver.sessions until nothing of it is left: whoever wants the next one waits for that.
type tempHost struct {
	ready  chan struct{} // closed when rec or err is set
	rec    *record
	err    error
	users  int
	ending bool          // somebody removes it; no new users
	gone   chan struct{} // closed when it is cleaned up
}

func isTemp(s driver.Spec) bool { return strings.HasSuffix(s.ID, tempSuffix) }

// Files implements [driver.Driver].
func (d *Driver) Files(ctx context.Context, spec driver.Spec) (io.ReadWriteCloser, error) {
	if err := checkSpec(spec); err != nil {
		return nil, err
	}
	r, err := d.awake(spec.ID)
	switch {
	case err == nil && r.waiting():
		return nil, errs.Busy("instance %q is starting", spec.ID)
	case err == nil:
		rw, err := d.sessionByAgent(ctx, r)
		if errors.Is(err, errNoAgent) {
			return d.session(ctx, r, func() {})
		}
		if err != nil {
			return nil, fmt.Errorf("open the files of %s: %w", spec.ID, err)
		}
		return rw, nil
	case d.hasInit(spec.ID): // frozen, most likely
		return nil, err
	}
	return d.stoppedSession(ctx, spec)
}

func (d *Driver) hasInit(id string) bool {
	_, err := d.running(id)
	return err == nil
}

// session starts the agent in a container; release is called once, when the session has ended.
func (d *Driver) session(ctx context.Context, r *record, release func()) (io.ReadWriteCloser, error) {
	agent, err := d.agent.get(d.cfg.Agent)
	if err != nil {
		release()
		return nil, err
	}
	facts, err := d.usable(ctx)
	if err != nil {
		release()
		return nil, err
	}
	spec := agentProcess(r, facts, "sftp", "GOGC=50", "GOMAXPROCS=2")
	p, pipes, err := d.spawn(ctx, r, spec, driver.ExecRequest{Stdin: strings.NewReader("")}, agent)
	if err == nil && p.dead {
		err = errs.Unavailable("the file agent does not start in instance %s (code %d)", r.spec.ID, p.code)
	}
	if err != nil {
		release()
		return nil, err
	}
	return &session{d: d, p: p, pipes: pipes, release: release}, nil
}

type session struct {
	d       *Driver
	p       *process
	pipes   *stdio
	release func()
	once    sync.Once
}

func (s *session) Read(b []byte) (int, error)  { return s.pipes.stdout.Read(b) }
func (s *session) Write(b []byte) (int, error) { return s.pipes.stdin.Write(b) }

// Close ends the session; the agent meets the end of its input. One that does not go is killed.
func (s *session) Close() error {
	s.once.Do(func() {
		s.pipes.closeOurs()
		s.d.wg.Go(func() {
			timer := time.AfterFunc(2*time.Second, func() { _ = s.p.Signal(int(unix.SIGKILL)) })
			_, _ = s.p.Wait()
			timer.Stop()
			s.release()
		})
	})
	return nil
}

// stoppedSession serves a session from the throw-away container, which it makes when there is none.
func (d *Driver) stoppedSession(ctx context.Context, spec driver.Spec) (io.ReadWriteCloser, error) {
	t, first, err := d.joinTemp(ctx, spec.ID)
	if err != nil {
		return nil, err
	}
	if first {
		t.rec, t.err = d.startTemp(ctx, spec)
		close(t.ready)
	}
	release := func() { d.releaseTemp(spec.ID, t) }
	select {
	case <-t.ready:
	case <-ctx.Done():
		release()
		return nil, context.Cause(ctx)
	}
	if t.err != nil {
		release()
		return nil, fmt.Errorf("open the files of stopped instance %s: %w", spec.ID, t.err)
	}
	return d.session(ctx, t.rec, release)
}

// joinTemp makes the caller a user of the throw-away container; the first one has to start it. One that is just going is
// waited for.
func (d *Driver) joinTemp(ctx context.Context, id string) (t *tempHost, first bool, err error) {
	for {
		d.mu.Lock()
		t = d.sessions[id]
		if t == nil {
			t = &tempHost{ready: make(chan struct{}), gone: make(chan struct{}), users: 1}
			d.sessions[id] = t
			d.mu.Unlock()
			return t, true, nil
		}
		if !t.ending {
			t.users++
			d.mu.Unlock()
			return t, false, nil
		}
		d.mu.Unlock()
		select {
		case <-t.gone:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

func (d *Driver) startTemp(ctx context.Context, spec driver.Spec) (*record, error) {
	temp := spec
	temp.ID += tempSuffix
	temp.Dir = filepath.Join(spec.Dir, tempDir)
	temp.LogDir = temp.Dir
	temp.Mounts, temp.Limits, temp.Rlimits, temp.Nesting, temp.Env = nil, driver.Limits{}, nil, false, nil
	temp.Init = []string{agentPath, "pause"}
	if err := os.MkdirAll(temp.Dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := d.create(ctx, temp, true); err != nil {
		return nil, err
	}
	if err := d.Start(ctx, temp.ID); err != nil {
		return nil, errors.Join(err, d.endTemp(context.WithoutCancel(ctx), temp))
	}
	return d.running(temp.ID)
}

// releaseTemp gives up one use and removes the container after the last.
func (d *Driver) releaseTemp(id string, t *tempHost) {
	d.mu.Lock()
	t.users--
	last := t.users == 0 && !t.ending
	if last {
		t.ending = true
	}
	d.mu.Unlock()
	if !last {
		return
	}
	defer d.forgetTemp(id, t)
	if t.rec == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), 30*time.Second)
	defer cancel()
	if err := d.endTemp(ctx, t.rec.spec); err != nil {
		d.cfg.Logger.Error("remove the container that served files", "instance", id, "err", err)
	}
}

// forgetTemp lets the next one be made. Only who set t.ending calls it.
func (d *Driver) forgetTemp(id string, t *tempHost) {
	d.mu.Lock()
	delete(d.sessions, id)
	d.mu.Unlock()
	close(t.gone)
}

func (d *Driver) endTemp(ctx context.Context, temp driver.Spec) error {
	if err := d.Kill(ctx, temp.ID); err != nil {
		return err
	}
	return d.Cleanup(ctx, temp.ID)
}

// endSessions takes the root back from sessions of a stopped instance: a start wins over an open file.
func (d *Driver) endSessions(ctx context.Context, id string) error {
	d.mu.Lock()
	t := d.sessions[id]
	d.mu.Unlock()
	if t == nil {
		return nil
	}
	select {
	case <-t.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.mu.Lock()
	mine := !t.ending
	t.ending = true // its users release something that is gone already
	d.mu.Unlock()
	if !mine {
		select {
		case <-t.gone:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	defer d.forgetTemp(id, t)
	if t.rec == nil {
		return nil
	}
	return d.endTemp(ctx, t.rec.spec)
}
