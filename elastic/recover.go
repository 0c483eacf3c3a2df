package elastic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// Survivors asks all machines that this one knows of what copies they have, this machine's first if it has one. It takes at most two seconds.
func (n *Node) Survivors(ctx context.Context) []Status {
	others := n.others()
	found := make([]aboutAnswer, len(others))
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i, a := range others {
		wg.Go(func() {
			_ = n.caller.call(ctx, a, "about", aboutQuestion{Name: n.cfg.Name}, &found[i]) // who does not answer has not survived
		})
	}
	wg.Wait()
	var out []Status
	if s := n.Status(); s.Role != Spare {
		out = append(out, s)
	}
	for _, f := range found {
		if f.Role != Spare {
			out = append(out, f.Status)
		}
	}
	return out
}

// Best returns the survivor to recover from: of the newest epoch the one that has applied most, by term and index, a standby as good as a voter.
func Best(survivors []Status) (Status, bool) {
	if len(survivors) == 0 {
		return Status{}, false
	}
	return slices.MaxFunc(survivors, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Term, b.Term), cmp.Compare(a.Applied, b.Applied), -cmp.Compare(a.Name, b.Name))
	}), true
}

// Recover makes a new cluster of this machine's copy after the majority of voters is lost for ever, with a higher epoch, new ids and higher revisions; all other
// machines that are or come in reach give their copies up for it and get roles anew. The last acknowledged writes may be missing when the copy had
// not got them. It is an operator's decision and never made without being asked for. It is refused while there is a majority, and, unless forced, when a
// better copy is in reach. After a crash either nothing has happened or the next [Open] finishes it.
func (n *Node) Recover(ctx context.Context, force bool) error {
	m := n.current()
	if m == nil {
		return errs.Unavailable("recover the database: no copy runs on this machine")
	}
	rctx, cancel := context.WithTimeout(ctx, 3*n.cfg.Election+time.Second)
	err := m.etcd.Server.LinearizableReadNotify(rctx)
	cancel()
	if err == nil {
		return errs.Conflict("recover the database: it has a majority of its voters, there is nothing to recover")
	}
	all := n.Survivors(ctx)
	for _, s := range all {
		if s.Role == Voter && s.Quorum {
			return errs.Conflict("recover the database: %s has a majority; this machine is cut off from it", s.Name)
		}
	}
	best, _ := Best(all)
	if me := n.Status(); best.Name != me.Name && !force {
		return errs.Conflict("recover the database: the copy of %s is newer (epoch %d, term %d, applied %d; here %d, %d, %d): recover there",
			best.Name, best.Epoch, best.Term, best.Applied, me.Epoch, me.Term, me.Applied)
	}
	file := filepath.Join(n.cfg.Dir, "recover.db")
	if err := m.Snapshot(ctx, file); err != nil {
		return fmt.Errorf("recover the database: %w", err)
	}
	if err := n.restoreFrom(ctx, file, best.Epoch+1); err != nil {
		return fmt.Errorf("recover the database: %w", err)
	}
	return os.Remove(file)
}

// Restore makes a new cluster with the content of a snapshot file, whatever this machine was before. Machines that the snapshot knows follow it when the epoch in it is
// theirs or higher.
func (n *Node) Restore(ctx context.Context, file string) error {
	epoch := n.identity().Epoch
	for _, s := range n.Survivors(ctx) {
		epoch = max(epoch, s.Epoch)
	}
	return n.restoreFrom(ctx, file, epoch+1)
}

func (n *Node) restoreFrom(ctx context.Context, file string, epoch int64) error {
	n.life.Lock()
	defer n.life.Unlock()
	id := newIdentity(n.cfg.Name)
	old := n.identity()
	id.Node, id.Starts, id.Epoch, id.Address, id.Phase, id.Member = old.Node, old.Starts, epoch, n.cfg.Address, restoring, restored
	if id.Node == "" {
		id.Node = newID()
	}
	if err := n.cfg.restore(ctx, id, file); err != nil {
		return err
	}
	n.setStarting(true)
	defer n.setStarting(false)
	n.takeDown(ctx)
	if err := n.keep(id); err != nil { // from here on it goes forward only
		return err
	}
	id, err := n.finishRestore(id)
	if err != nil {
		return err
	}
	m, err := n.run(id, "")
	if err != nil {
		return err
	}
	if err := m.ready(ctx, 0); err != nil {
		return err
	}
	if err := n.keep(m.withIDs(n.identity())); err != nil {
		return err
	}
	d := desk{m.client}
	_, rev, _, err := d.get(ctx, n.cfg.Name)
	if err == nil {
		err = d.put(ctx, n.ownRecord(n.identity()), rev)
	}
	if err == nil {
		_, err = m.client.Put(ctx, epochKey, strconv.FormatInt(epoch, 10))
	}
	poke(n.wake)
	return err
}

// finishRestore puts restored data in its place, once. life is held.
func (n *Node) finishRestore(id identity) (identity, error) {
	_, err := os.Lstat(n.cfg.next())
	if err == nil {
		if err = n.cfg.aside(time.Now()); err == nil {
			err = n.cfg.install()
		}
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil // the crash was after it
	}
	if err != nil {
		return id, err
	}
	id.Phase = member
	return id, n.keep(id)
}

// noteIDs keeps the ids of a member that began without knowing them.
func (n *Node) noteIDs(m *Member) {
	n.life.Lock()
	defer n.life.Unlock()
	if id := n.identity(); n.current() == m && id.Phase == member && id.Member == restored {
		if err := n.keep(m.withIDs(id)); err != nil {
			n.log.Error("the identity could not be kept", "err", err)
		}
	}
}
