package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-project/shoal/internal/errs"
)

// Tunnel dials through an ssh server. Safe for concurrent use.
type Tunnel struct {
	cfg    Config
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // over what follows and wg.Go
	closed bool
	up     *link
	try    chan struct{} // closed when the attempt that is under way has ended
	err    error         // of the last attempt
	next   time.Time     // before which none is made
	pause  time.Duration
}

// link is one connection over a route.
type link struct {
	route   Route
	clients []*ssh.Client // by hop
	gone    chan struct{}
}

func (l *link) last() *ssh.Client { return l.clients[len(l.clients)-1] }

// close ends it, from the first hop on: what the later ones wait for can only come through that.
func (l *link) close() {
	for _, c := range l.clients {
		_ = c.Close()
	}
}

var errClosed = errs.Unavailable("the ssh tunnel is closed")

// New returns a tunnel and connects when something is dialled or checked. Files are not looked at before.
func New(cfg Config) (*Tunnel, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Tunnel{cfg: cfg}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// Close ends all that was dialled and returns when nothing of the tunnel runs any more.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	t.closed = true
	up := t.up
	t.mu.Unlock()
	t.cancel()
	if up != nil {
		up.close()
	}
	t.wg.Wait()
	return nil
}

// spawn runs f in a goroutine that Close waits for. It is false when the tunnel is closed.
func (t *Tunnel) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// Check connects unless there is a connection and says why that is not possible: Denied for a key that is not accepted, on
// either side, Invalid for a file that cannot be used, else Unavailable.
func (t *Tunnel) Check(ctx context.Context) error {
	_, err := t.link(ctx)
	return err
}

// Dial connects to a target: network is tcp with host:port or unix with an absolute path, as the last server sees them. It waits for
// a connection while ctx lasts, pauses after failures included, but returns with the first attempt that fails.
func (t *Tunnel) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	switch {
	case network == "unix" && strings.HasPrefix(address, "/"):
	case network == "tcp":
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, errs.Invalid("target %q: must be host:port", address)
		}
	default:
		return nil, errs.Invalid("target %s %q: must be tcp and host:port or unix and an absolute path", network, address)
	}
	for again := true; ; again = false {
		l, err := t.link(ctx)
		if err != nil {
			return nil, err
		}
		far, err := l.last().DialContext(ctx, network, address)
		if err == nil {
			return t.adopt(far)
		}
		if err = refused(l.route, address, err); !errs.Is(err, errs.UnavailableClass) || ctx.Err() != nil {
			return nil, err
		}
		var said *ssh.OpenChannelError
		if errors.As(err, &said) || !again {
			return nil, err
		}
		l.close() // it broke before it was noticed
		<-l.gone
	}
}

func (t *Tunnel) adopt(far net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = far.Close()
		return nil, errClosed
	}
	return through(far, &t.wg), nil
}

// refused says what a server means that does not connect to a target.
func refused(r Route, address string, err error) error {
	server := r[len(r)-1]
	var said *ssh.OpenChannelError
	switch {
	case !errors.As(err, &said):
		return errs.Unavailable("connect to %s through ssh server %s: %w", address, server, err)
	case said.Reason == ssh.Prohibited:
		return errs.Forbidden("ssh server %s does not allow connections to %s (AllowTcpForwarding, AllowStreamLocalForwarding, PermitOpen, permitopen): %w", server, address, err)
	}
	return errs.Unavailable("ssh server %s cannot connect to %s (does something listen there?): %w", server, address, err)
}

// link returns the connection, making one when there is none: one attempt at a time, for all who wait.
func (t *Tunnel) link(ctx context.Context) (*link, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, errClosed
	}
	if l := t.up; l != nil {
		t.mu.Unlock()
		return l, nil
	}
	if t.try == nil {
		t.try = make(chan struct{})
		t.wg.Go(t.attempt)
	}
	try := t.try
	t.mu.Unlock()
	select {
	case <-try:
	case <-ctx.Done():
		t.mu.Lock()
		defer t.mu.Unlock()
		return nil, errs.Unavailable("connect by ssh: %w", errors.Join(context.Cause(ctx), t.err))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return nil, errClosed
	case t.up != nil:
		return t.up, nil
	case t.err != nil:
		return nil, t.err
	}
	return nil, errs.Unavailable("the ssh connection broke at once")
}

// attempt waits for its time and tries the routes in order.
func (t *Tunnel) attempt() {
	t.mu.Lock()
	wait := time.Until(t.next)
	t.mu.Unlock()
	select {
	case <-t.ctx.Done():
	case <-time.After(wait):
	}
	var failed []error
	var l *link
	for _, r := range t.cfg.Routes {
		var err error
		if l, err = t.connect(r); err == nil {
			break
		}
		failed = append(failed, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(t.try)
	t.try = nil
	if l != nil && !t.closed {
		t.up, t.err = l, nil
		t.wg.Go(func() { t.watch(l) })
		t.wg.Go(func() { t.keepAlive(l) })
		t.cfg.Log.Info("connected by ssh", "route", l.route.String())
		return
	}
	if l != nil {
		l.close()
	}
	t.err = all(failed)
	t.pauseLonger()
	t.cfg.Log.Warn("connect by ssh", "err", t.err, "retry", t.pause)
}

// all makes one error of those of all routes, of the class of the last one that is not just a server that is away: that is the one which
// somebody has to do something about.
func all(failed []error) error {
	if len(failed) == 1 {
		return failed[0]
	}
	class := errs.UnavailableClass
	var texts []string
	for _, err := range failed {
		if c := errs.ClassOf(err); c != errs.UnavailableClass {
			class = c
		}
		texts = append(texts, err.Error())
	}
	return errs.Classify(class, fmt.Errorf("no ssh route works: %s", strings.Join(texts, "; ")))
}

// pauseLonger is called with t.mu held.
func (t *Tunnel) pauseLonger() {
	t.pause = min(max(2*t.pause, 100*time.Millisecond), t.cfg.MaxPause)
	t.next = time.Now().Add(t.pause/2 + rand.N(t.pause/2+1))
}

// watch waits for the end of a connection. One that lasted a while resets the pauses; a server that ends each connection at once does not.
func (t *Tunnel) watch(l *link) {
	began := time.Now()
	err := l.last().Wait()
	l.close()
	t.mu.Lock()
	t.up = nil
	if time.Since(began) > t.cfg.MaxPause {
		t.pause = 0
	}
	t.pauseLonger()
	t.mu.Unlock()
	close(l.gone)
	if t.ctx.Err() == nil {
		t.cfg.Log.Warn("the ssh connection broke", "route", l.route.String(), "err", err)
	}
}

// keepAlive ends a connection whose last server does not answer; what is between is asked with it.
func (t *Tunnel) keepAlive(l *link) {
	for {
		select {
		case <-l.gone:
			return
		case <-time.After(t.cfg.KeepAlive):
		}
		answer := make(chan error, 1)
		ok := t.spawn(func() {
			_, _, err := l.last().SendRequest("keepalive@openssh.com", true, nil)
			answer <- err
		})
		if !ok {
			return
		}
		select {
		case err := <-answer:
			if err == nil {
				continue
			}
		case <-l.gone:
			return
		case <-time.After(misses * t.cfg.KeepAlive):
			t.cfg.Log.Warn("the ssh server does not answer", "route", l.route.String())
		}
		l.close()
		return
	}
}

// connect makes the connection of a route.
func (t *Tunnel) connect(r Route) (*link, error) {
	l := &link{route: r, gone: make(chan struct{})}
	for i := range r {
		c, err := t.hop(l, r[i])
		if err != nil {
			l.close()
			if i > 0 {
				err = fmt.Errorf("through %s: %w", r[:i], err)
			}
			return nil, err
		}
		l.clients = append(l.clients, c)
	}
	return l, nil
}

// hop connects to and logs in at one server, through those that l has already.
func (t *Tunnel) hop(l *link, h Hop) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.Timeout)
	defer cancel()
	check, algorithms, err := hostKeys(h, t.cfg.KnownHosts)
	if err != nil {
		return nil, err
	}
	creds, err := t.cfg.load(ctx)
	if err != nil {
		return nil, err
	}
	defer creds.close()
	raw, err := t.raw(ctx, l, h)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	known := false
	conn, channels, requests, err := ssh.NewClientConn(raw, h.Addr, &ssh.ClientConfig{
		User: h.User, HostKeyAlgorithms: algorithms, ClientVersion: "SSH-2.0-shoal",
		Auth: []ssh.AuthMethod{ssh.PublicKeys(creds.signers...)},
		HostKeyCallback: func(name string, at net.Addr, key ssh.PublicKey) error {
			err := check(name, at, key)
			known = err == nil
			return err
		},
	})
	if !stop() && err == nil {
		_ = conn.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close()
		return nil, t.loginFailed(h, known, creds, errors.Join(context.Cause(ctx), err))
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// raw is the byte stream to a server.
func (t *Tunnel) raw(ctx context.Context, l *link, h Hop) (net.Conn, error) {
	if len(l.clients) == 0 {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", h.Addr)
		if err != nil {
			return nil, errs.Unavailable("connect to ssh server %s: %w", h, err)
		}
		return c, nil
	}
	far, err := l.last().DialContext(ctx, "tcp", h.Addr)
	if err != nil {
		return nil, refused(l.route[:len(l.clients)], h.Addr, err)
	}
	return t.adopt(far)
}

// loginFailed gives the error of a handshake its class: that of the check of the server's key; Denied when the server is the right one
// and ended it in so many words; else the connection broke.
func (t *Tunnel) loginFailed(h Hop, known bool, creds *credentials, err error) error {
	var broken net.Error
	switch {
	case errs.Is(err, errs.Denied):
		return fmt.Errorf("connect to ssh server %s: %w", h, err)
	case !known || errors.As(err, &broken) || errors.Is(err, io.EOF) || t.ctx.Err() != nil:
		return errs.Unavailable("connect to ssh server %s: %w", h, err)
	}
	skipped := ""
	if len(creds.skipped) > 0 {
		skipped = "; not tried: " + strings.Join(creds.skipped, "; ")
	}
	var prints []string
	for _, s := range creds.signers {
		prints = append(prints, ssh.FingerprintSHA256(s.PublicKey()))
	}
	return errs.Forbidden("ssh server %s accepts none of the keys %s%s: %w", h, strings.Join(slices.Compact(prints), ", "), skipped, err)
}
