package elastic

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// identity is the content of identity.json.
type identity struct {
	Format int    `json:"format"`
	Name   string `json:"name"`
	Token  string `json:"token"` // random: two clusters never take each other's members for theirs
	// Member and Cluster are etcd's ids in hexadecimal, empty until the first start was complete.
	Member  string `json:"member,omitempty"`
	Cluster string `json:"cluster,omitempty"`

	// Of a machine in a cluster (format 2).
	Node    string `json:"node,omitempty"`    // random id of this machine's identity: the same name with another id is another machine
	Phase   phase  `json:"phase,omitempty"`   // what the machine was about; "" of a lone member
	Address string `json:"address,omitempty"` // under which the member is registered
	Epoch   int64  `json:"epoch,omitempty"`   // how often the cluster was recovered
	Starts  int64  `json:"starts,omitempty"`  // counts starts of the member: a disk that knows of fewer than the cluster is an old copy
}

// phase is what a crash may interrupt.
type phase string

const (
	founding phase = "founding" // bootstrap has begun, nothing was acknowledged
	joining  phase = "joining"  // the copy is incomplete and worth nothing
	member   phase = "member"   // the copy is worth keeping
	spare    phase = "spare"    // there is no copy
	// restoring is after a restored database is whole, before it is in its place.
	restoring phase = "restoring"
)

const (
	identityFormat = 1 // a lone member
	clusterFormat  = 2 // a machine of a cluster; a build that knows nothing of clusters must not start a member there
)

func (c Config) identityFile() string { return filepath.Join(c.Dir, "identity.json") }

func newIdentity(name string) identity {
	return identity{Format: identityFormat, Name: name, Token: newToken()}
}

func newToken() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return "shoal-" + hex.EncodeToString(b)
}

// loadIdentity returns ok false when there is none.
func (c Config) loadIdentity() (id identity, ok bool, err error) {
	b, err := os.ReadFile(c.identityFile())
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, err
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return id, false, fmt.Errorf("read %s: %w", c.identityFile(), err)
	}
	if id.Format != identityFormat && id.Format != clusterFormat {
		return id, false, errs.Unsupported("%s has format %d, this build knows %d and %d", c.identityFile(), id.Format, identityFormat, clusterFormat)
	}
	if id.Name != c.Name {
		return id, false, errs.Invalid("the database in %s belongs to member %q, not %q", c.Dir, id.Name, c.Name)
	}
	return id, true, nil
}

// save writes identity.json durably, whole or not at all.
func (c Config) save(id identity) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(c.identityFile(), append(b, '\n'))
}

func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing after the rename
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// hasData says whether the directory holds anything of etcd.
func (c Config) hasData() bool {
	_, err := os.Lstat(c.data())
	return err == nil
}

// aside moves the data out of the way and keeps the newest two of what was moved before.
func (c Config) aside(now time.Time) error {
	if c.hasData() {
		if err := os.Rename(c.data(), fmt.Sprintf("%s.old-%s", c.data(), now.UTC().Format("20060102T150405.000000000"))); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	var old []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(c.data())+".old-") {
			old = append(old, e.Name())
		}
	}
	slices.Sort(old)
	for len(old) > 2 {
		if err := os.RemoveAll(filepath.Join(c.Dir, old[0])); err != nil {
			return err
		}
		old = old[1:]
	}
	return syncDir(c.Dir)
}
