package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/oci/agentproto"
	"github.com/shoal-project/shoal/internal/errs"
)

const (
	agentIdle   = time.Minute      // default of Config.AgentIdle
	agentAnswer = 2 * time.Second  // how long an agent may take before the runtime does its work
	agentBegun  = 30 * time.Second // and how long for what it has begun, which nobody else may begin
	agentRetry  = time.Minute      // how long none is started after one could not be
)

var (
	// errNoAgent means that the runtime has to do it; nothing was started.
	errNoAgent = errors.New("no agent in the instance")
	// errAgentLeft means that another agent can do it; nothing was started.
	errAgentLeft = errors.New("the agent is just leaving")
	errAgentGone = errs.Unavailable("the agent in the instance went away while the command ran")
)

// resident is an agent that stays in a running instance and starts commands and file sessions there in a millisecond or so. What
// answers may be any process of the guest: its messages are bounded and have to make sense, or it is dropped.
type resident struct {
	rec   *record
	conn  *net.UnixConn
	shim  *process // the agent as the shim's command: to kill it
	idle  time.Duration
	timer *time.Timer // runs while there are no calls

	mu      sync.Mutex
	calls   map[uint64]*call
	revoked map[uint64]bool // calls that we took back and that the agent does not know of yet
	last    uint64
	over    bool // no new calls
}

// call is a command or a file session of an agent.
type call struct {
	a        *resident
	n        uint64
	terminal bool
	begun    chan struct{} // closed when reply is set
	ended    chan struct{} // closed when code and err are set

	// Guarded by a.mu until the channel is closed that stands for them.
	reply     agentproto.Reply
	tty       *os.File
	code      int
	err       error
	abandoned bool // who asked for it has gone
}

// serve is the goroutine that reads what the agent says, until it is gone or is to go.
func (a *resident) serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = a.conn.Close() })()
	buf, oob := make([]byte, agentproto.MaxReply+1), make([]byte, unix.CmsgSpace(4))
	for {
		n, on, flags, _, err := a.conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return nil
		}
		fd, err := oneRight(oob[:on])
		if err == nil && flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
			err = errors.New("too long a message or too many descriptors")
		}
		var rep agentproto.Reply
		if err == nil {
			rep, err = agentproto.ParseReply(buf[:n])
		}
		if err == nil {
			fd, err = a.deliver(rep, fd)
		}
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		if err != nil {
			return err
		}
	}
}

// oneRight returns the descriptor of a message, -1 when there is none. It closes what is too much.
func oneRight(oob []byte) (int, error) {
	if len(oob) == 0 {
		return -1, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, err
	}
	var all []int
	for i := range msgs {
		fds, _ := unix.ParseUnixRights(&msgs[i])
		all = append(all, fds...)
	}
	if len(all) == 1 && len(msgs) == 1 {
		return all[0], nil
	}
	for _, fd := range all {
		_ = unix.Close(fd)
	}
	return -1, fmt.Errorf("%d descriptors in a message", len(all))
}

// deliver takes a reply to where it is waited for. It returns the descriptor, when it has no use for it.
func (a *resident) deliver(rep agentproto.Reply, fd int) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.revoked[rep.N] && rep.State == agentproto.Revoked {
		delete(a.revoked, rep.N)
		if a.over { // slow but alive: what it has started may go on
			a.timer.Stop()
		}
		return fd, nil
	}
	c := a.calls[rep.N]
	if c == nil {
		return fd, fmt.Errorf("an answer %q about the unknown number %d", rep.State, rep.N)
	}
	begun := isClosed(c.begun)
	switch {
	case rep.State == agentproto.Started && begun, rep.State != agentproto.Started && fd >= 0:
		return fd, fmt.Errorf("an answer %q out of order", rep.State)
	case rep.State == agentproto.Started && (fd >= 0) != c.terminal:
		return fd, errors.New("a terminal that was not asked for, or none")
	case begun && rep.State != agentproto.Exited, rep.State == agentproto.Revoked:
		return fd, fmt.Errorf("an answer %q out of order", rep.State)
	}
	if c.terminal && rep.State == agentproto.Started {
		tty, err := terminalMaster(fd)
		if err != nil {
			return fd, err
		}
		c.tty, fd = tty, -1
	}
	if !begun {
		c.reply = rep
		close(c.begun)
	}
	if rep.State == agentproto.Started {
		if c.abandoned {
			c.drop()
			return fd, a.send(agentproto.Request{Op: agentproto.OpSignal, N: c.n, Signal: int(unix.SIGKILL)})
		}
		return fd, nil
	}
	c.code = rep.Code
	a.finish(c)
	return fd, nil
}

func (c *call) drop() {
	if c.tty != nil {
		_ = c.tty.Close()
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// finish ends a call; a.mu is held.
func (a *resident) finish(c *call) {
	delete(a.calls, c.n)
	close(c.ended)
	a.rest()
}

// rest is called with a.mu held whenever there may be nothing left to wait for.
func (a *resident) rest() {
	switch {
	case len(a.calls) > 0:
	case a.over:
		_ = a.conn.Close()
	default:
		a.timer.Reset(a.idle)
	}
}

// retire has the agent take no new calls; it goes with the last that runs, or soon when it gives no sign of life.
func (a *resident) retire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.timer.Reset(agentBegun)
	a.rest()
}

// expire ends an agent that nobody has used or that does not answer.
func (a *resident) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.calls) == 0 || a.over {
		a.over = true
		_ = a.conn.Close()
	}
}

// lost tells all who wait that nothing more will come, and makes sure of that.
func (a *resident) lost() {
	_ = a.conn.Close()
	_ = a.shim.Signal(int(unix.SIGKILL)) // it ends by itself unless it is stuck, or not ours any more
	a.shim.remote.forget()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.timer.Stop()
	for _, c := range a.calls {
		c.err = errAgentGone
		if !isClosed(c.begun) {
			close(c.begun)
		}
		if c.abandoned {
			c.drop()
		}
		close(c.ended)
	}
	clear(a.calls)
}

func (a *resident) send(req agentproto.Request, fds ...int) error {
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := a.conn.SetWriteDeadline(time.Now().Add(agentAnswer)); err != nil {
		return err
	}
	_, _, err = a.conn.WriteMsgUnix(b, rights, nil)
	return err
}

// start asks for a command or a session and returns when it runs or is known not to. errNoAgent when the agent does not answer and
// does not begin it later either.
func (a *resident) start(ctx context.Context, req agentproto.Request, fds ...*os.File) (*call, error) {
	token, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer unix.Close(token)
	nums := []int{token}
	for _, f := range fds {
		nums = append(nums, int(f.Fd()))
	}
	c := &call{a: a, terminal: req.Terminal, begun: make(chan struct{}), ended: make(chan struct{})}
	a.mu.Lock()
	if a.over {
		a.mu.Unlock()
		return nil, errAgentLeft
	}
	a.timer.Stop()
	a.last++
	c.n = a.last
	a.calls[c.n] = c
	a.mu.Unlock()
	req.N = c.n
	if err := a.send(req, nums...); err != nil {
		a.giveUp(c, takeToken(token))
		a.retire()
		return nil, errAgentLeft
	}
	if err := c.await(ctx, token); err != nil {
		return nil, err
	}
	switch {
	case c.reply.State == "": // lost
		if takeToken(token) {
			return nil, errAgentLeft
		}
		return nil, errAgentGone
	case c.reply.State == agentproto.Failed && c.reply.Error == agentproto.BadCwd:
		return nil, errBadCwd
	case c.reply.State == agentproto.Failed:
		return nil, fmt.Errorf("run the command: %q", c.reply.Error)
	}
	return c, nil
}

// await waits until a call is begun.
func (c *call) await(ctx context.Context, token int) error {
	timer := time.NewTimer(agentAnswer)
	defer timer.Stop()
	select {
	case <-c.begun:
		return nil
	case <-ctx.Done():
		c.a.giveUp(c, takeToken(token))
		return context.Cause(ctx)
	case <-timer.C:
	}
	c.a.retire()
	if takeToken(token) {
		c.a.giveUp(c, true)
		return errNoAgent
	}
	timer.Reset(agentBegun)
	select {
	case <-c.begun:
		return nil
	case <-ctx.Done():
		c.a.giveUp(c, false)
		return context.Cause(ctx)
	case <-timer.C:
		c.a.giveUp(c, false)
		return errs.Unavailable("the agent in the instance does not say whether the command has started")
	}
}

func takeToken(fd int) bool {
	var b [8]byte
	_, err := unix.Read(fd, b[:])
	return err == nil
}

// giveUp leaves a call whose answer has not come: taken back, or to be killed should it start.
func (a *resident) giveUp(c *call, back bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.abandoned = true
	switch {
	case a.calls[c.n] != c: // it has ended meanwhile
		c.drop()
	case back:
		a.revoked[c.n] = true
		a.finish(c)
	case isClosed(c.begun):
		c.drop()
		_ = a.send(agentproto.Request{Op: agentproto.OpSignal, N: c.n, Signal: int(unix.SIGKILL)})
	}
}

// signal implements remote.
func (c *call) signal(sig int) error {
	if isClosed(c.ended) {
		return nil
	}
	err := c.a.send(agentproto.Request{Op: agentproto.OpSignal, N: c.n, Signal: sig})
	if err != nil && isClosed(c.ended) {
		return nil
	}
	return err
}

// wait implements remote. When the instance ends, so does everything in it, the agent first or last.
func (c *call) wait() (int, error) {
	<-c.ended
	if c.err == nil {
		return c.code, nil
	}
	timer := time.NewTimer(lastBreath)
	defer timer.Stop()
	select {
	case <-c.a.rec.gone:
		return 128 + int(unix.SIGKILL), nil
	case <-timer.C:
		return -1, c.err
	}
}

// lastBreath is how long the end of an instance may take from the end of its first process to that of its init.
const lastBreath = 500 * time.Millisecond

// forget implements remote.
func (c *call) forget() {}
