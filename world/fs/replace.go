package fs

import (
	"context"
	"io"
	iofs "io/fs"
	"syscall"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// ReplaceOptions say what Replace may write over.
type ReplaceOptions struct {
	Perm  iofs.FileMode // of a new file
	New   bool          // the path must be missing
	Match string        // unless "": the ETag that the file must have
}

// Replace gives a file the content of r, and makes it if it is missing, in one transaction after everything has been uploaded: who reads sees what was
// there before, or all of it. Of what is being replaced the last writer's content stays, unless o says otherwise; its mode and owner stay.
func (f *FS) Replace(ctx context.Context, p string, r io.Reader, o ReplaceOptions) (*Info, error) {
	if err := f.check(ctx, p, o); err != nil { // before the upload, and again after it
		return nil, pathError("write", p, err)
	}
	up := f.st.newUpload()
	defer func() { _ = up.release(context.WithoutCancel(ctx)) }() // else the pins run out
	c, err := newContent(ctx, f.view(), inode{}, up)
	if err != nil {
		return nil, pathError("write", p, err)
	}
	n := f.newInode(o.Perm & modeBits)
	if err = c.copyFrom(ctx, r); err == nil {
		err = c.store(ctx, &n)
	}
	if err != nil {
		return nil, pathError("write", p, err)
	}
	return f.swap(ctx, p, n, up, o)
}

// copyFrom appends what r has.
func (c *content) copyFrom(ctx context.Context, r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		k, err := io.ReadFull(r, buf)
		if _, werr := c.writeAt(ctx, buf[:k], c.size); werr != nil {
			return werr
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
		if int64(len(buf)) < c.chunk && c.size >= int64(len(buf)) {
			buf = make([]byte, c.chunk) // whole chunks need no copy to grow
		}
	}
}

func (f *FS) check(ctx context.Context, p string, o ReplaceOptions) error {
	v := f.view()
	at, err := v.walk(ctx, p, true)
	if err != nil {
		return err
	}
	return v.mayReplace(ctx, at, o)
}

func (v *view) mayReplace(ctx context.Context, at place, o ReplaceOptions) error {
	switch {
	case at.missing != "" && !at.isDir():
		return syscall.ENOTDIR
	case at.missing != "" && o.Match != "":
		return syscall.ENOENT
	case at.missing != "":
		return nil
	case o.New:
		return syscall.EEXIST
	case at.isDir():
		return syscall.EISDIR
	case o.Match == "":
		return nil
	}
	i, err := v.info(ctx, at.ino(), "")
	if err == nil && i.ETag() != o.Match {
		err = errs.PreconditionFailed("the file is %s now, not %s", i.ETag(), o.Match)
	}
	return err
}

// swap has a path name uploaded content.
func (f *FS) swap(ctx context.Context, p string, n inode, up *upload, o ReplaceOptions) (*Info, error) {
	ino := newIno()
	var info *Info
	rev, err := f.change(ctx, "write", p, func(v *view) (kvstore.Txn, error) {
		at, err := v.walk(ctx, p, true)
		if err == nil {
			err = v.mayReplace(ctx, at, o)
		}
		if err == nil {
			err = up.ensure(ctx)
		}
		if err != nil {
			return kvstore.Txn{}, err
		}
		var t kvstore.Txn
		if at.missing != "" {
			info = &Info{name: base(p), n: n, Ino: ino}
			t, err = v.add(ctx, at, ino, n)
		} else {
			cur, kv, e := v.inode(ctx, at.ino())
			n.Mode, n.UID, n.GID = cur.Mode, cur.UID, cur.GID
			info = &Info{name: base(p), n: n, Ino: at.ino()}
			t.If = []kvstore.Compare{kvstore.Unchanged(kv.Key, kv.ModRevision)}
			t.Then, err = []kvstore.Op{kvstore.Put(kv.Key, encode(n))}, e
		}
		up.commit(&t)
		return t, err
	})
	if err != nil {
		return nil, err
	}
	up.committed()
	info.Revision = rev
	return info, nil
}
