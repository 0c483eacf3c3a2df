package fs

import (
	"context"
	iofs "io/fs"
	"path"
	"strings"

	"github.com/shoal-project/shoal/kvstore"
)

// ChangeType is what happened to a path.
type ChangeType string

// What can happen. A rename is Removed and Created; of a directory's, only its own path is named, though all below it moved too.
const (
	Created ChangeType = "created"
	Written ChangeType = "written" // content, mode, owner or time
	Removed ChangeType = "removed"
)

// Change is one change of one path.
type Change struct {
	Type ChangeType    `json:"type"`
	Path string        `json:"path"` // with a slash in front
	Mode iofs.FileMode `json:"-"`    // the type bits
}

// Changes are those of one moment.
type Changes struct {
	Changes  []Change
	Revision int64 // everything up to it has been told
	// Reset says that something may have been missed: look at everything again. It is so in the first call, which says that the watch stands.
	Reset bool
}

// Watch calls fn, from its own goroutine, first when the watch stands and then after each change at root or below, until ctx ends or fn
// returns an error, and returns why. It survives lost connections and compaction. It holds the names of the whole volume in memory.
func (f *FS) Watch(ctx context.Context, root string, fn func(Changes) error) error {
	w := &watcher{root: path.Clean("/" + root)}
	w.clear()
	tree := f.st.treePrefix(f.vol.ID)
	return f.st.kv.NewWatcher(tree).Run(ctx, func(b kvstore.Batch) error {
		if b.Reset {
			w.clear()
		}
		c := Changes{Revision: b.Revision}
		for _, e := range b.Events {
			w.event(strings.TrimPrefix(e.KV.Key, tree), e, &c)
		}
		for _, e := range b.Events {
			w.written(strings.TrimPrefix(e.KV.Key, tree), e, &c)
		}
		switch {
		case b.ListDone: // the first, or after compaction: then events came in the order of keys, and paths may be those in between
			return fn(Changes{Revision: b.Revision, Reset: true})
		case b.Revision == 0: // a page of a list
			return nil
		}
		if len(c.Changes) == 0 {
			return nil
		}
		return fn(c)
	})
}

// name is an entry's place.
type name struct {
	parent Ino
	name   string
}

// watcher knows where every inode is, so that a change of an inode has a path.
type watcher struct {
	root   string
	names  map[Ino]name
	inodes map[name]step
}

func (w *watcher) clear() {
	w.names, w.inodes = map[Ino]name{}, map[name]step{}
}

// path returns where an inode is; ok is false of what has been detached.
func (w *watcher) path(i Ino) (string, bool) {
	var parts []string
	for range MaxDepth + 1 {
		if i == rootIno {
			p := "/"
			for k := len(parts) - 1; k >= 0; k-- {
				p = path.Join(p, parts[k])
			}
			return p, true
		}
		n, ok := w.names[i]
		if !ok {
			break
		}
		parts, i = append(parts, n.name), n.parent
	}
	return "", false
}

func (w *watcher) tell(c *Changes, t ChangeType, p string, mode iofs.FileMode) {
	if p == w.root || w.root == "/" || strings.HasPrefix(p, w.root+"/") {
		c.Changes = append(c.Changes, Change{t, p, mode})
	}
}

// event notes a change of an entry. What nobody of this version can have written is passed over.
func (w *watcher) event(key string, e kvstore.Event, c *Changes) {
	rest, ok := strings.CutPrefix(key, "d/")
	if !ok {
		return
	}
	dir, file, ok := strings.Cut(rest, "/")
	parent, err := parseIno(dir)
	if !ok || err != nil || !nameOK(file) {
		return
	}
	at := name{parent, file}
	where, visible := w.path(parent)
	where = path.Join(where, file)
	if old, ok := w.inodes[at]; ok {
		delete(w.inodes, at)
		if w.names[old.ino] == at { // else it has been moved already
			delete(w.names, old.ino)
		}
		if visible {
			w.tell(c, Removed, where, old.Type)
		}
	}
	if e.Type == kvstore.Deleted {
		return
	}
	n, err := decodeEntry(e.KV.Value)
	if err != nil {
		return
	}
	w.names[n.ino], w.inodes[at] = at, step{entry: n}
	if visible {
		w.tell(c, Created, where, n.Type)
	}
}

// written notes changes of inodes, after those of entries.
func (w *watcher) written(key string, e kvstore.Event, c *Changes) {
	rest, ok := strings.CutPrefix(key, "i/")
	ino, err := parseIno(rest)
	if !ok || err != nil || e.Type != kvstore.Modified {
		return
	}
	if p, ok := w.path(ino); ok {
		w.tell(c, Written, p, w.inodes[w.names[ino]].Type)
	}
}
