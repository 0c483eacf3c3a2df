package fs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/shoal-project/shoal/kvstore"
)

// session is what this process's pins hang on.
type session struct {
	id      string
	lease   *kvstore.Lease
	created int64 // revision of its key, which lives as long as the lease

	mu sync.Mutex
	n  int
}

// session returns the current one, and begins another when there is none or it has been lost.
func (s *Store) session(ctx context.Context) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		select {
		case <-s.current.lease.Lost():
		default:
			return s.current, nil
		}
	}
	l, err := s.kv.NewLease(ctx, s.ttl)
	if err != nil {
		return nil, err
	}
	n := &session{id: newID(), lease: l}
	ok, rev, err := s.kv.CreateOnly(ctx, s.sessionKey(n.id), nil, l.ID())
	if err != nil || !ok {
		l.Release() // it runs out by itself
		return nil, fmt.Errorf("begin a session: %w", err)
	}
	n.created = rev
	s.current = n
	return n, nil
}

// forget drops a session that the store has lost, so that the next one is another.
func (s *Store) forget(old *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == old {
		s.current = nil
		old.lease.Release()
	}
}

// upload is a set of blobs that are kept from the collector until an inode names them. Safe for concurrent use.
type upload struct {
	st *Store

	mu    sync.Mutex
	sess  *session
	id    string
	blobs map[Hash]int // size of each that is pinned
}

func (s *Store) newUpload() *upload { return &upload{st: s, blobs: map[Hash]int{}} }

// begin returns the upload's session and the prefix of its pins.
func (u *upload) begin(ctx context.Context) (*session, string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sess == nil {
		sess, err := u.st.session(ctx)
		if err != nil {
			return nil, "", err
		}
		sess.mu.Lock()
		sess.n++
		u.id = strconv.Itoa(sess.n)
		sess.mu.Unlock()
		u.sess = sess
	}
	return u.sess, u.st.pinPrefix(u.sess.id, u.id), nil
}

// put stores a blob, if it is not there, and pins it.
func (u *upload) put(ctx context.Context, data []byte) (Hash, error) {
	h := Hash(sha256.Sum256(data))
	u.mu.Lock()
	_, have := u.blobs[h]
	u.mu.Unlock()
	if have {
		return h, nil
	}
	err := u.pin(ctx, h, data)
	if errors.Is(err, kvstore.ErrLeaseExpired) {
		if err = u.renew(ctx); err == nil {
			err = u.pin(ctx, h, data)
		}
	}
	return h, err
}

// pin pins a blob. Content of one that is there is not sent again, but its use is noted: a collection that has begun before spares
// it. Without data a blob must be there already.
func (u *upload) pin(ctx context.Context, h Hash, data []byte) error {
	sess, pins, err := u.begin(ctx)
	if err != nil {
		return err
	}
	s := u.st
	use, size := s.useKey(h), []byte(strconv.Itoa(len(data)))
	r, err := s.read(ctx, kvstore.Range{Key: use})
	if err != nil {
		return err
	}
	for found := r.KVs; ; {
		t := kvstore.Txn{If: []kvstore.Compare{kvstore.Missing(use)}, Else: []kvstore.Op{kvstore.Get(use)}}
		switch {
		case len(found) > 0:
			t.If, size = []kvstore.Compare{kvstore.Unchanged(use, found[0].ModRevision)}, found[0].Value
		case data == nil:
			return ErrLost
		default:
			t.Then = append(t.Then, kvstore.Put(s.blobKey(h), data))
			size = []byte(strconv.Itoa(len(data)))
		}
		t.Then = append(t.Then, kvstore.Put(use, size), kvstore.Op{Type: kvstore.OpPut, Key: pins + h.String(), Lease: sess.lease.ID()})
		res, err := s.kv.Txn(ctx, t)
		if err != nil {
			return err
		}
		if res.Succeeded {
			u.mu.Lock()
			u.blobs[h] = len(data)
			u.mu.Unlock()
			return nil
		}
		found = res.Results[0].KVs
	}
}

// renew pins everything again under a new session; ErrLost when something was collected meanwhile.
func (u *upload) renew(ctx context.Context) error {
	u.mu.Lock()
	old := u.sess
	u.sess = nil
	u.mu.Unlock()
	if old != nil {
		u.st.forget(old)
	}
	for _, h := range u.all() {
		if err := u.pin(ctx, h, nil); err != nil {
			return err
		}
	}
	return nil
}

func (u *upload) all() []Hash {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]Hash, 0, len(u.blobs))
	for h := range u.blobs {
		out = append(out, h)
	}
	return out
}

// commit adds to a transaction that names the blobs that they are still pinned, and that they need not be any more.
func (u *upload) commit(t *kvstore.Txn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sess == nil {
		return
	}
	key, pins := u.st.sessionKey(u.sess.id), u.st.pinPrefix(u.sess.id, u.id)
	t.If = append(t.If, kvstore.Compare{Key: key, Target: kvstore.TargetCreate, Equal: u.sess.created})
	t.Then = append(t.Then, kvstore.Op{Type: kvstore.OpDelete, Key: pins, End: kvstore.PrefixEnd(pins)})
}

// ensure looks whether the session is alive, and renews it if not.
func (u *upload) ensure(ctx context.Context) error {
	u.mu.Lock()
	sess := u.sess
	u.mu.Unlock()
	if sess == nil {
		return nil
	}
	kv, ok, err := u.st.kv.Get(ctx, u.st.sessionKey(sess.id))
	if err != nil || ok && kv.CreateRevision == sess.created {
		return err
	}
	return u.renew(ctx)
}

// committed empties the upload after its commit.
func (u *upload) committed() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sess, u.blobs = nil, map[Hash]int{}
}

// release gives pins back that were not committed.
func (u *upload) release(ctx context.Context) error {
	u.mu.Lock()
	sess, id := u.sess, u.id
	u.sess, u.blobs = nil, map[Hash]int{}
	u.mu.Unlock()
	if sess == nil {
		return nil
	}
	_, _, err := u.st.kv.RemovePrefix(ctx, u.st.pinPrefix(sess.id, id))
	return err
}
