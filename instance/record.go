package instance

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/idmap"
	"github.com/shoal-project/shoal/internal/state"
)

// phase says which change of several effects is under way; see doc.go.
type phase string

const (
	ready    phase = ""
	creating phase = "creating" // undone when cut off
	deleting phase = "deleting" // finished when cut off
	renaming phase = "renaming" // the new name's record, while the old one has RenamingTo; finished when cut off
)

// intent is what somebody has decided about the power of an instance and what is not done yet. It is written before the first
// effect, so that the decision holds when the daemon dies before the result is recorded. A start clears it.
type intent string

const (
	wantNothing intent = ""
	wantStop    intent = "stop"     // a forced stop: finished when cut off, also when the process still runs
	wantStart   intent = "start"    // a restart that has stopped it, or a restart policy that waits: started when cut off
	wantBack    intent = "shutdown" // the host goes down: it counts as running, so that it comes back as boot.autostart says
)

// record is an instance as it is stored, under project/name. Values read from the table are shared: clone before a change.
type record struct {
	ID           string // runtime id, = volatile.uuid; stays over renames
	Type         string
	Architecture string
	Description  string
	Config       api.Config // local: the user's, image.* and volatile.*
	Devices      api.Devices
	Profiles     []string
	Ephemeral    bool
	CreatedAt    time.Time
	LastUsedAt   time.Time
	Image        string       // fingerprint, empty: made from nothing
	Pool         string       // of the root disk; never changes
	IDMap        driver.IDMap // claimed block; zero: never needed one
	Location     string
	Phase        phase
	RenamingTo   string
	Restoring    string // id of the snapshot that the root is being replaced from; finished when cut off
	Intent       intent `json:",omitempty"`
}

func (r record) clone() record {
	r.Config = maps.Clone(r.Config)
	r.Devices = config.CloneDevices(r.Devices)
	r.Profiles = slices.Clone(r.Profiles)
	return r
}

// claim is a resource that at most one instance has: an id block or a hardware address.
type claim struct{ Owner string }

// claims returns the keys of what a record owns.
func (r record) claims(member string) map[string]bool {
	out := map[string]bool{}
	if r.IDMap.Size > 0 {
		out[state.Key("idmap", member, fmt.Sprintf("%010d", r.IDMap.Base))] = true
	}
	for k, v := range r.Config {
		if strings.HasPrefix(k, "volatile.") && strings.HasSuffix(k, ".hwaddr") && !strings.Contains(k, ".last_state.") {
			out[state.Key("hwaddr", v)] = true
		}
	}
	return out
}

// ref names an instance: what every internal function passes around.
type ref struct {
	project api.ProjectName
	name    api.InstanceName
}

func (r ref) key() string { return state.Key(r.project.String(), r.name.String()) }

// dirName is the name of the instance's directories: as LXD's, so that people find their logs.
func (r ref) dirName() string {
	if r.project == api.DefaultProject {
		return r.name.String()
	}
	return r.project.String() + "_" + r.name.String()
}

func (r ref) String() string { return path.Join(r.project.String(), r.name.String()) }

// parseKey is the inverse of ref.key; it fails for a key that this build would not have written.
func parseKey(key string) (ref, error) {
	parts := state.SplitKey(key)
	if len(parts) != 2 {
		return ref{}, errs.Invalid("instance key %q", key)
	}
	project, err := api.ParseProjectName(parts[0])
	if err != nil {
		return ref{}, err
	}
	name, err := api.ParseInstanceName(parts[1])
	return ref{project, name}, err
}

// store is the records and the claims.
type store struct {
	db      *state.DB
	records *state.Table[record]
	claimed *state.Table[claim]
	snaps   *state.Table[snapshot]
	member  string
	gate    func(r ref, old, now *record) ([]state.Op, error) // see Service.gate
}

func newStore(db *state.DB, member string) *store {
	return &store{db: db, member: member, records: state.NewTable[record](db, "instances", 1), claimed: state.NewTable[claim](db, "claims", 1),
		snaps: state.NewTable[snapshot](db, "snapshots", 1)}
}

func (s *store) get(r ref) (state.Item[record], error) {
	item, err := s.records.Get(r.key())
	if errs.IsNotFound(err) {
		return item, errs.NotFound("Instance not found")
	}
	return item, err
}

// list returns a project's records, or all with the zero project. Read only: the values are shared.
func (s *store) list(project api.ProjectName) []state.Item[record] {
	prefix := ""
	if !project.IsZero() {
		prefix = state.Key(project.String()) + "/"
	}
	return s.records.List(prefix)
}

// write stores now in place of item, together with the claims that came and went, in one transaction.
// errs.Exists says that a claim is taken, errs.Denied that the project does not allow it.
func (s *store) write(ctx context.Context, item state.Item[record], now record) error {
	ops, err := s.claimOps(item.Value, now)
	if err != nil {
		return err
	}
	r, err := parseKey(item.Key)
	if err != nil {
		return err
	}
	gate, err := s.gate(r, &item.Value, &now)
	if err != nil {
		return err
	}
	ops = append(ops, gate...)
	item.Value = now
	_, err = s.db.Txn(ctx, append(ops, s.records.UpdateOp(item))...)
	return err
}

// create stores a record under a name that must be free. errs.Conflict: the project changed meanwhile, ask again.
func (s *store) create(ctx context.Context, r ref, rec record) error {
	ops, err := s.claimOps(record{}, rec)
	if err != nil {
		return err
	}
	gate, err := s.gate(r, nil, &rec)
	if err != nil {
		return err
	}
	ops = append(ops, gate...)
	_, err = s.db.Txn(ctx, append(ops, s.records.CreateOp(r.key(), rec))...)
	return err
}

// remove deletes a record and gives back its claims; nil when it is gone.
func (s *store) remove(ctx context.Context, r ref) error {
	item, err := s.get(r)
	if err != nil {
		if errs.IsNotFound(err) {
			return nil
		}
		return err
	}
	ops, err := s.claimOps(item.Value, record{})
	if err != nil {
		return err
	}
	_, err = s.db.Txn(ctx, append(ops, s.records.DeleteOp(item))...)
	return err
}

// modify changes a record, again when somebody else was faster. It returns the record as written.
func (s *store) modify(ctx context.Context, r ref, change func(*record) error) (record, error) {
	for {
		item, err := s.get(r)
		if err != nil {
			return record{}, err
		}
		now := item.Value.clone()
		if err := change(&now); err != nil {
			return record{}, err
		}
		if err := s.write(ctx, item, now); !errs.IsConflict(err) {
			return now, err
		}
	}
}

func (s *store) claimOps(old, now record) ([]state.Op, error) {
	var ops []state.Op
	before, after := old.claims(s.member), now.claims(s.member)
	for key := range after {
		if !before[key] {
			ops = append(ops, s.claimed.CreateOp(key, claim{Owner: now.ID}))
		}
	}
	for key := range before {
		if after[key] {
			continue
		}
		item, err := s.claimed.Get(key)
		if errs.IsNotFound(err) || err == nil && item.Value.Owner != old.ID {
			continue
		}
		if err != nil {
			return nil, err
		}
		ops = append(ops, s.claimed.DeleteOp(item))
	}
	return ops, nil
}

// freeBlock returns the lowest id block of the range that nobody has claimed.
func (s *store) freeBlock(r idmap.Range) (driver.IDMap, error) {
	var used []idmap.Range
	for _, it := range s.claimed.List(state.Prefix("idmap", s.member)) {
		parts := state.SplitKey(it.Key)
		base, err := strconv.ParseUint(parts[len(parts)-1], 10, 32)
		if err != nil {
			return driver.IDMap{}, fmt.Errorf("claim %q of user ids: %w", it.Key, err)
		}
		used = append(used, idmap.Range{Base: uint32(base), Size: idmap.BlockSize})
	}
	b, err := idmap.Choose(r, idmap.BlockSize, used)
	if err != nil {
		return driver.IDMap{}, fmt.Errorf("user ids for an unprivileged instance: %w", err)
	}
	return driver.IDMap{Base: b.Base, Size: b.Size}, nil
}

// newHWAddr makes up a hardware address with LXD's prefix. The claim in the record's transaction keeps it unique.
func newHWAddr() string {
	b := []byte{0x00, 0x16, 0x3e, 0, 0, 0}
	_, _ = rand.Read(b[3:])
	return net.HardwareAddr(b).String()
}

func newUUID() string { return uuid.New().String() }

// idmapJSON is volatile.idmap.current as LXD writes it.
func idmapJSON(m driver.IDMap) string {
	if m.Size == 0 {
		return "[]"
	}
	type row struct {
		Isuid, Isgid bool
		Hostid, Nsid int64
		Maprange     int64
	}
	b, _ := json.Marshal([]row{{true, false, int64(m.Base), 0, int64(m.Size)}, {false, true, int64(m.Base), 0, int64(m.Size)}})
	return string(b)
}
