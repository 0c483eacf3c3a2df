package fs

import (
	"context"
	"fmt"
	"strconv"

	"github.com/shoal-project/shoal/kvstore"
)

// Usage counts what a store holds.
type Usage struct {
	Volumes map[string]VolumeUsage
	Blobs   int64 // chunks and manifests; the volumes share them
	Bytes   int64 // in them: what the database keeps for content beyond MaxInline
}

// VolumeUsage counts a volume.
type VolumeUsage struct {
	Files, Dirs, Links int64
	Bytes              int64 // sum of the sizes of files
	Inline             int64 // of which in inodes
}

// Usage counts everything; it reads every inode once, in pages, and no content.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	u := Usage{Volumes: map[string]VolumeUsage{}}
	names, err := s.Volumes(ctx)
	if err != nil {
		return u, fmt.Errorf("count: %w", err)
	}
	for _, name := range names {
		f, err := s.Open(ctx, name)
		if err != nil {
			return u, fmt.Errorf("count: %w", err)
		}
		v, err := f.Usage(ctx)
		if err != nil {
			return u, fmt.Errorf("count: %w", err)
		}
		u.Volumes[name] = v
	}
	err = s.list(ctx, s.prefix+"use/", 0, func(kv kvstore.KeyValue) error {
		n, err := strconv.ParseInt(string(kv.Value), 10, 64)
		u.Blobs, u.Bytes = u.Blobs+1, u.Bytes+n
		return err
	})
	return u, err
}

// Usage counts the volume. Detached trees that nobody has taken apart yet count too.
func (f *FS) Usage(ctx context.Context) (u VolumeUsage, err error) {
	err = f.st.list(ctx, f.st.treePrefix(f.vol.ID)+"i/", 0, func(kv kvstore.KeyValue) error {
		n, err := decodeInode(kv.Value)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrCorrupt, kv.Key, err)
		}
		switch {
		case n.Mode.IsDir():
			u.Dirs++
		case n.Mode.IsRegular():
			u.Files, u.Bytes, u.Inline = u.Files+1, u.Bytes+n.Size, u.Inline+int64(len(n.Data))
		default:
			u.Links++
		}
		return nil
	})
	return u, err
}
