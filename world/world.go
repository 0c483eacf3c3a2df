package world

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
	"github.com/shoal-project/shoal/world/watch"
)

// Options say who this is, where the World lies and how to reach it. Machine must be set, and either KV or Dial with Seeds or NoNetwork.
type Options struct {
	// Machine is the name of this machine, unique in the World (see names.ParseMachine). Two machines of one name overwrite each other.
	Machine string
	// Namespace is the prefix of all keys; "" is names.DefaultNamespace.
	Namespace string

	// KV is a client that the caller closes after the World.
	KV *kvstore.Client
	// Dial opens the store when there is no KV: with the Seeds, or with none and NoNetwork. kvstore/etcd has one for etcd; over ssh it is
	// world/ssh that gives the connections. Close closes what it opened.
	Dial func(ctx context.Context, seeds []string) (kvstore.Backend, error)
	// Seeds are the addresses of members of the database: http, https or unix URLs, or host:port.
	Seeds []string
	// NoNetwork says that the store is reached within this machine only: Seeds and AdvertiseURLs must be empty.
	NoNetwork bool
	// AdvertiseURLs are where others reach this machine's member of the database; they stand in its record (see World.Machines).
	AdvertiseURLs []string

	// Grace is how long what this machine exports stays visible after it was last up; at least a second, 0 means 24 hours. The store may
	// make it up to half as long again.
	Grace time.Duration
	// SessionTTL is how long it takes until a machine that is gone counts as down; 0 means 10 s.
	SessionTTL time.Duration

	// Signer signs the deploys that this machine adds, Verifier says whether a signature is good and whose; nil: not signed, not verified.
	Signer   Signer
	Verifier Verifier
	// Authors returns the keys of the people who may deploy. When there are any, a deploy needs the signature of one of them (Draft.Content), and who
	// can write to the store but has none of their keys cannot make the machines run anything. nil: nobody is asked.
	Authors func() ([]string, error)
	// Members is the database's membership; nil: WatchMembers is Unsupported.
	Members MemberSource

	Clock clock.Clock  // nil: the real one
	Log   *slog.Logger // nil: nothing is logged
}

// World is what all machines see. Safe for concurrent use.
type World struct {
	o     Options
	me    names.Machine
	ns    names.Namespace
	kv    *kvstore.Client
	owned bool // kv was dialled here
	log   *slog.Logger

	mu   sync.Mutex
	hubs map[string]*kvstore.Hub // by prefix
}

// New returns a World. It does not wait for the store, unless Dial does.
func New(ctx context.Context, o Options) (*World, error) {
	me, err := names.ParseMachine(o.Machine)
	if err != nil {
		return nil, err
	}
	ns, err := names.ParseNamespace(o.Namespace)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	w := &World{o: o.withDefaults(), me: me, ns: ns, kv: o.KV, hubs: map[string]*kvstore.Hub{}}
	w.log = w.o.Log
	if w.kv == nil {
		b, err := o.Dial(ctx, slices.Clone(o.Seeds))
		if err != nil {
			return nil, fmt.Errorf("open the world: %w", err)
		}
		w.kv, w.owned = kvstore.New(b, kvstore.Config{Log: w.log, Name: o.Machine}), true
	}
	return w, nil
}

func (o Options) withDefaults() Options {
	if o.Grace == 0 {
		o.Grace = 24 * time.Hour
	}
	if o.SessionTTL == 0 {
		o.SessionTTL = 10 * time.Second
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// check reports what of the options does not fit together, with class Invalid.
func (o Options) check() error {
	switch {
	case o.NoNetwork && len(o.Seeds)+len(o.AdvertiseURLs) > 0:
		return errs.Invalid("no network was asked for: seeds %q and advertised URLs %q must be empty", o.Seeds, o.AdvertiseURLs)
	case o.KV != nil && (o.Dial != nil || len(o.Seeds) > 0):
		return errs.Invalid("a client and seeds were given: one of them says where the world is")
	case o.KV == nil && o.Dial == nil:
		return errs.Invalid("nothing says how to reach the world: a client, or a way to dial, is needed")
	case o.KV == nil && len(o.Seeds) == 0 && !o.NoNetwork:
		return errs.Invalid("no seeds: at least one address of the database is needed")
	case o.Grace != 0 && o.Grace < time.Second:
		return errs.Invalid("grace period %v: at least 1s is allowed", o.Grace)
	case o.SessionTTL != 0 && o.SessionTTL < time.Second:
		return errs.Invalid("session time %v: at least 1s is allowed", o.SessionTTL)
	}
	for i, s := range o.Seeds {
		if err := checkURL("seed", s, true); err != nil {
			return err
		}
		if slices.Contains(o.Seeds[:i], s) {
			return errs.Invalid("seed %q is named twice", s)
		}
	}
	if len(o.AdvertiseURLs) > maxURLs {
		return errs.TooLarge("%d URLs are advertised, at most %d are allowed", len(o.AdvertiseURLs), maxURLs)
	}
	for _, u := range o.AdvertiseURLs {
		if err := checkURL("advertised URL", u, false); err != nil {
			return err
		}
	}
	return nil
}

// maxURLs bounds the addresses that a machine says it has.
const maxURLs = 32

// checkURL reports, with class Invalid, what is not an address of a database member. bare allows host:port.
func checkURL(what, s string, bare bool) error {
	if bare && !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	ok := err == nil && len(s) <= names.MaxName
	if ok {
		switch u.Scheme {
		case "http", "https":
			ok = u.Hostname() != "" && u.Port() != "" && strings.Trim(u.Path, "/") == ""
		case "unix":
			ok = u.Host+u.Path != ""
		default:
			ok = false
		}
	}
	if !ok {
		return errs.Invalid("%s %q: must be like https://host:port or unix:///path", what, s)
	}
	return nil
}

// Machine returns the name of this machine.
func (w *World) Machine() string { return w.me.String() }

// Namespace returns where the World lies.
func (w *World) Namespace() names.Namespace { return w.ns }

// KV returns the client, for the rooms below this one.
func (w *World) KV() *kvstore.Client { return w.kv }

// Close closes the store if it was dialled by New, and with it all watches; otherwise they end with the client that was given.
func (w *World) Close() error {
	if !w.owned {
		return nil
	}
	return w.kv.Close()
}

// NewWatcher makes the World a watch.Source: watches below one tree share one stream of the store. The trees that may be large or are written
// often (the file system's) are not followed unless somebody watches them.
func (w *World) NewWatcher(prefix string) (*kvstore.Watcher, error) {
	tree := w.tree(prefix)
	if tree == "" {
		return w.kv.NewWatcher(prefix), nil
	}
	w.mu.Lock()
	h := w.hubs[tree]
	if h == nil {
		h = w.kv.NewHub(kvstore.HubConfig{Prefix: tree})
		w.hubs[tree] = h
	}
	w.mu.Unlock()
	return h.NewWatcher(prefix)
}

// tree returns the prefix that is followed for a watch of prefix, "" for one that gets a stream of its own.
func (w *World) tree(prefix string) string {
	for _, tree := range []string{
		w.ns.Prefix(treeStrings), w.ns.Prefix(treeStringMaps), w.ns.Key(treeDeploys, "head"), w.ns.Prefix(treeDeploys, "status"),
		w.ns.Prefix(treeMachines), w.ns.Prefix(treeAlive), w.ns.Prefix(treeGrace),
		w.ns.Prefix(treeExports, w.Machine()), w.ns.Prefix(treeExports, names.Everyone),
	} {
		if strings.HasPrefix(prefix, tree) {
			return tree
		}
	}
	return ""
}

// The trees below the namespace.
const (
	treeStrings    = "strings"
	treeStringMaps = "stringmaps"
	treeExports    = "exports"
	treeExporters  = "exporters"
	treeDeploys    = "deploys"
	treeMachines   = "machines"
	treeAlive      = "alive"
	treeGrace      = "grace"
)

func (w *World) watch(ctx context.Context, targets ...watch.Target) (*watch.Watch, error) {
	return watch.New(ctx, w, targets...)
}
