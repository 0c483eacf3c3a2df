package op

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"sync"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// slot is one websocket of an operation: waiting for its client, then connected or failed.
type slot struct {
	name    string
	secret  string // 64 hexadecimal digits, 256 random bits
	expires time.Time

	mu      sync.Mutex
	claimed bool
	closed  bool // the operation is over: whoever still connects is turned away
	sock    Socket
	err     error
	ready   chan struct{} // closed when sock or err is set
}

func newSlots(names []string, now time.Time) map[string]*slot {
	slots := make(map[string]*slot, len(names))
	for _, n := range names {
		var b [32]byte
		_, _ = rand.Read(b[:]) // crypto/rand.Read never returns an error
		slots[n] = &slot{name: n, secret: hex.EncodeToString(b[:]), expires: now.Add(SecretLife), ready: make(chan struct{})}
	}
	return slots
}

func (o *operation) secrets() map[string]any {
	m := make(map[string]any, len(o.sockets))
	for n, s := range o.sockets {
		m[n] = s.secret
	}
	return m
}

func (o *operation) connected() bool {
	for _, s := range o.sockets {
		s.mu.Lock()
		claimed := s.claimed
		s.mu.Unlock()
		if claimed {
			return true
		}
	}
	return false
}

// Connect gives the operation the websocket that secret stands for. upgrade is called with the socket's name once
// the secret has been accepted, and only then. The secret is used up even when upgrade fails. errs.Forbidden for a
// wrong, used or expired secret, errs.Invalid when the operation is over or has no websockets.
func (r *Registry) Connect(id, secret string, upgrade func(name string) (Socket, error)) error {
	o, err := r.find(id)
	if err != nil {
		return err
	}
	select {
	case <-o.done:
		return errs.Invalid("Only running operations can be connected")
	default:
	}
	if len(o.sockets) == 0 {
		return errs.Invalid("Only websocket operations can be connected")
	}
	s := o.claim(secret, r.d.Clock.Now())
	if s == nil {
		return errs.Forbidden("not authorized")
	}
	sock, err := upgrade(s.name)
	s.mu.Lock()
	if s.closed && err == nil {
		s.mu.Unlock()
		return sock.Close()
	}
	s.sock, s.err = sock, err
	close(s.ready)
	s.mu.Unlock()
	return err
}

// claim finds the slot of a secret and marks it used. All secrets are compared, each in constant time.
func (o *operation) claim(secret string, now time.Time) *slot {
	var found *slot
	for _, s := range o.sockets {
		if subtle.ConstantTimeCompare([]byte(s.secret), []byte(secret)) == 1 {
			found = s
		}
	}
	if found == nil {
		return nil
	}
	found.mu.Lock()
	defer found.mu.Unlock()
	if found.claimed || found.closed || now.After(found.expires) {
		return nil
	}
	found.claimed = true
	return found
}

// Socket waits until the client has connected the named websocket, at most ConnectWait.
func (o *operation) Socket(ctx context.Context, name string) (Socket, error) {
	s, ok := o.sockets[name]
	if !ok {
		return nil, errs.Invalid("operation has no websocket %q", name)
	}
	t := time.NewTimer(ConnectWait)
	defer t.Stop()
	select {
	case <-s.ready:
		return s.sock, s.err
	case <-t.C:
		return nil, errs.Unavailable("websocket %q was not connected within %s", name, ConnectWait)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// closeSockets ends what is connected and turns away what still comes.
func (o *operation) closeSockets() {
	for _, s := range o.sockets {
		s.mu.Lock()
		s.closed = true
		sock := s.sock
		s.mu.Unlock()
		if sock != nil {
			_ = sock.Close() // the peer may be gone
		}
	}
}
