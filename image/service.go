package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/run"
	"github.com/shoal-project/shoal/internal/state"
)

// Deps is what the service needs.
type Deps struct {
	Dir    string // the daemon's directory; images/ in it is this room's
	State  *state.DB
	Runner run.Runner
	Clock  clock.Clock
	Logger *slog.Logger
	// Form forces the form that new images are kept in; empty: the best that this host can mount.
	Form Form
}

// Service keeps images. Safe for concurrent use.
type Service struct {
	deps    Deps
	images  *state.Table[record]
	aliases *state.Table[aliasRecord]
	holds   *state.Table[holdRecord]
	root    *fsroot.Root // <dir>/images
	info    Info

	mu    sync.Mutex
	locks map[string]*refLock // by fingerprint: content is made, mounted and removed by one at a time

	removing sync.WaitGroup
}

type refLock struct {
	sync.Mutex
	users int
}

// record is an image of a project in the database; its aliases have records of their own.
type record struct {
	Image api.Image `json:"image"`
}

// aliasRecord is an alias of a project.
type aliasRecord struct {
	Target      string `json:"target"` // fingerprint
	Description string `json:"description,omitempty"`
	Type        string `json:"type"`
}

// holdRecord says that somebody needs the content of an image.
type holdRecord struct {
	Since time.Time `json:"since"`
}

// New sweeps what uploads left that a crash cut off, and finds out how this host mounts images. It reads nothing
// from the database; call [Service.Recover] when that can be written.
func New(ctx context.Context, d Deps) (*Service, error) {
	dir := filepath.Join(d.Dir, "images")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	root, err := fsroot.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	s := &Service{deps: d, root: root, locks: map[string]*refLock{}}
	s.images = state.NewTable[record](d.State, "images", 1)
	s.aliases = state.NewTable[aliasRecord](d.State, "image-aliases", 1)
	s.holds = state.NewTable[holdRecord](d.State, "image-holds", 1)
	if err := root.RemoveTemp("."); err != nil {
		d.Logger.Warn("unfinished images cannot be swept", "err", err)
	}
	s.info = s.probe(ctx)
	return s, nil
}

// Close waits for removals in the background. Mounts stay: instances run from them.
func (s *Service) Close() error {
	s.removing.Wait()
	return s.root.Close()
}

// Info says how images are kept on this host.
func (s *Service) Info() Info { return s.info }

// Recover removes content that has neither record nor holder. The database must be whole when it is called: what it
// does not name is deleted.
func (s *Service) Recover(ctx context.Context) error {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	var all []error
	for _, e := range entries {
		fp, err := api.ParseFingerprint(e.Name())
		if err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		all = append(all, s.collect(fp))
	}
	return errors.Join(all...)
}

// lock serialises what is done to the content of one image; call the result to unlock.
func (s *Service) lock(fp api.Fingerprint) func() {
	s.mu.Lock()
	l := s.locks[fp.String()]
	if l == nil {
		l = &refLock{}
		s.locks[fp.String()] = l
	}
	l.users++
	s.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.locks, fp.String())
		}
	}
}
