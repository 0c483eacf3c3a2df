package elastic

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shoal-project/shoal/internal/errs"
)

// Keys, all below one prefix. What roles the machines have is not among them: raft's membership says that.
const (
	Prefix = "/shoal/elastic/"
	// SizeKey holds the number of voters wanted, as a decimal number; it may be changed at any time, with etcdctl too. Below the prefix it has the path
	// that mgmt uses below its namespace.
	SizeKey = Prefix + "chooser/dynamicsize/idealclustersize"
	// StandbysKey holds the number of standbys wanted.
	StandbysKey = Prefix + "chooser/dynamicsize/standbys"

	nodesPrefix = Prefix + "nodes/"
	nudgeKey    = Prefix + "nudge"
	epochKey    = Prefix + "epoch"
)

// record is what the cluster keeps of a machine, under nodes/NAME.
type record struct {
	Name    string `json:"name"`
	ID      string `json:"id"` // identity.Node
	Address string `json:"address"`
	Domain  string `json:"domain,omitempty"`
	Starts  int64  `json:"starts,omitempty"`
	Leaving bool   `json:"leaving,omitempty"`
}

func (r record) value() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(b)
}

// ParseTargets reads what the keys hold; "" is the default. The error names the key and what is allowed; what is not at fault is returned
// all the same, defaults in place of the rest.
func ParseTargets(voters, standbys string, defaults Targets) (Targets, error) {
	t := defaults
	var bad []string
	if voters != "" {
		if n, err := strconv.Atoi(strings.TrimSpace(voters)); err == nil && validVoters(n) {
			t.Voters = n
		} else {
			bad = append(bad, fmt.Sprintf("%s is %.20q: must be 1, 3, 5 or 7", SizeKey, voters))
		}
	}
	if standbys != "" {
		if n, err := strconv.Atoi(strings.TrimSpace(standbys)); err == nil && validStandbys(n) {
			t.Standbys = n
		} else {
			bad = append(bad, fmt.Sprintf("%s is %.20q: must be 0 to 5", StandbysKey, standbys))
		}
	}
	if bad != nil {
		return t, errs.Invalid("%s", strings.Join(bad, "; "))
	}
	return t, nil
}

func validVoters(n int) bool   { return n >= 1 && n <= 7 && n%2 == 1 }
func validStandbys(n int) bool { return n >= 0 && n <= 5 }

func (t Targets) check() error {
	if !validVoters(t.Voters) {
		return errs.Invalid("%d voters: must be 1, 3, 5 or 7", t.Voters)
	}
	if !validStandbys(t.Standbys) {
		return errs.Invalid("%d standbys: must be 0 to 5", t.Standbys)
	}
	return nil
}

// desk reads and writes the records.
type desk struct{ c *clientv3.Client }

// everything returns all records and the targets' texts, at the revision returned.
func (d desk) everything(ctx context.Context) (recs map[string]record, voters, standbys string, rev int64, err error) {
	r, err := d.c.Get(ctx, Prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, "", "", 0, err
	}
	recs = map[string]record{}
	for _, kv := range r.Kvs {
		switch key := string(kv.Key); {
		case key == SizeKey:
			voters = string(kv.Value)
		case key == StandbysKey:
			standbys = string(kv.Value)
		case strings.HasPrefix(key, nodesPrefix):
			var rec record
			if json.Unmarshal(kv.Value, &rec) == nil && rec.Name == key[len(nodesPrefix):] {
				recs[rec.Name] = rec
			}
		}
	}
	return recs, voters, standbys, r.Header.Revision, nil
}

// get returns a record and the revision of its last change; ok is false when there is none.
func (d desk) get(ctx context.Context, name string, opts ...clientv3.OpOption) (rec record, rev int64, ok bool, err error) {
	r, err := d.c.Get(ctx, nodesPrefix+name, opts...)
	if err != nil || len(r.Kvs) == 0 {
		return rec, 0, false, err
	}
	if err := json.Unmarshal(r.Kvs[0].Value, &rec); err != nil {
		return rec, 0, false, fmt.Errorf("read the record of %q: %w", name, err)
	}
	return rec, r.Kvs[0].ModRevision, true, nil
}

// put writes a record over revision rev, 0 for a new one.
func (d desk) put(ctx context.Context, rec record, rev int64) error {
	key := nodesPrefix + rec.Name
	r, err := d.c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", rev)).Then(clientv3.OpPut(key, rec.value())).Commit()
	if err == nil && !r.Succeeded {
		return errs.Conflict("the record of %q was changed meanwhile", rec.Name)
	}
	return err
}

// found writes the first record of a cluster; it does nothing when there is any.
func (d desk) found(ctx context.Context, rec record) error {
	_, err := d.c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(nodesPrefix), "=", 0).WithPrefix()).
		Then(clientv3.OpPut(nodesPrefix+rec.Name, rec.value())).Commit()
	return err
}

// change reads a record, changes it and writes it back, again when somebody else was faster. edit returns false when nothing is to be done.
func (d desk) change(ctx context.Context, name string, edit func(*record) bool) error {
	for {
		rec, rev, ok, err := d.get(ctx, name)
		if err != nil {
			return err
		}
		if !ok {
			return errs.NotFound("machine %q is not in the cluster", name)
		}
		if !edit(&rec) {
			return nil
		}
		if err := d.put(ctx, rec, rev); !errs.IsConflict(err) {
			return err
		}
	}
}
