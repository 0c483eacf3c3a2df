package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/image/unified"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
)

// builder makes the content of an image in its staging directory.
type builder struct {
	s     *Service
	root  *fsroot.Root
	parts []uploadPart
	mark  marker
}

func (b *builder) syncUploads() error {
	for _, p := range b.parts {
		if err := b.sync(p.File); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) sync(name string) error {
	f, err := b.root.Open(name)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s to disk: %w", name, err)
	}
	return nil
}

func (b *builder) make(ctx context.Context) (*api.ImageMetadata, error) {
	if b.parts[0].Part == Unified {
		return b.makeUnified(ctx)
	}
	meta, err := b.readMetaArchive(ctx, b.parts[0])
	if err != nil {
		return nil, err
	}
	disk := b.parts[1]
	if disk.Part == RootfsImage || disk.Kind == unified.Qcow2 {
		b.mark.Type = api.TypeVirtualMachine
		return meta, b.checkDisk(disk.File)
	}
	switch {
	case disk.Kind == unified.Squashfs:
		err = b.fromSquashfs(ctx, disk)
	case disk.Kind == unified.Tar:
		if err = b.unpackTar(ctx, disk, treeDir, nil); err == nil {
			err = b.fromTree(ctx)
		}
	default:
		err = errs.Invalid("the root file system is neither squashfs nor a tar archive (packed with gzip, bzip2, xz, lzma or zstd, or not)")
	}
	return meta, err
}

// readMetaArchive takes metadata.yaml and templates/ out of the metadata part.
func (b *builder) readMetaArchive(ctx context.Context, p uploadPart) (*api.ImageMetadata, error) {
	if p.Kind != unified.Tar {
		return nil, errs.Invalid("the metadata part is not a tar archive (packed with gzip, bzip2, xz, lzma or zstd, or not)")
	}
	err := b.unpack(ctx, p, metaDir, fsroot.UnpackOptions{
		Limits: fsroot.Limits{Entries: 1000, Bytes: 32 << 20, Depth: 8}, Select: isMeta,
	})
	if err != nil {
		return nil, err
	}
	return b.checkMeta(ctx)
}

// makeUnified takes an archive with everything apart.
func (b *builder) makeUnified(ctx context.Context) (*api.ImageMetadata, error) {
	p := b.parts[0]
	if p.Kind != unified.Tar {
		return nil, errs.Invalid("the image is not a tar archive (packed with gzip, bzip2, xz, lzma or zstd, or not)")
	}
	const tree = "tree"
	if err := b.unpackTar(ctx, p, tree, nil); err != nil {
		return nil, err
	}
	if err := b.root.Mkdir(metaDir, 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{unified.MetadataFile, unified.TemplatesDir} {
		if err := b.root.Rename(tree+"/"+name, metaDir+"/"+name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	meta, err := b.checkMeta(ctx)
	if err != nil {
		return nil, err
	}
	if st, err := b.root.Lstat(tree + "/" + unified.RootfsImage); err == nil && st.Mode().IsRegular() {
		b.mark.Type = api.TypeVirtualMachine
		if err := b.checkDisk(tree + "/" + unified.RootfsImage); err != nil {
			return nil, err
		}
		return meta, b.root.RemoveTree(tree) // the archive is kept
	}
	if st, err := b.root.Lstat(tree + "/" + unified.RootfsDir); err != nil || !st.IsDir() {
		return nil, errs.Invalid("the image has no root file system: neither rootfs/ nor rootfs.img is in the archive")
	}
	if err := b.root.Rename(tree+"/"+unified.RootfsDir, treeDir); err != nil {
		return nil, err
	}
	if err := b.root.RemoveTree(tree); err != nil {
		return nil, err
	}
	return meta, b.fromTree(ctx)
}

// checkMeta parses metadata.yaml and looks for its templates, all of which must be plain files.
func (b *builder) checkMeta(context.Context) (*api.ImageMetadata, error) {
	file := metaDir + "/" + unified.MetadataFile
	st, err := b.root.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.Invalid("the image has no metadata.yaml")
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errs.Invalid("metadata.yaml of the image is not a regular file")
	}
	text, err := b.root.ReadLimited(file, unified.MaxMetadata)
	if err != nil {
		return nil, err
	}
	meta, err := unified.ParseMetadata(text)
	if err != nil {
		return nil, err
	}
	for _, t := range meta.Templates {
		st, err := b.root.Lstat(metaDir + "/" + unified.TemplatesDir + "/" + t.Template)
		if err != nil || !st.Mode().IsRegular() || st.Size() > unified.MaxTemplate {
			return nil, errs.Invalid("template %q of the image is missing, not a regular file or larger than %d bytes", t.Template, unified.MaxTemplate)
		}
	}
	return meta, b.syncAll(metaDir)
}

// checkDisk refuses a disk that is more than a disk.
func (b *builder) checkDisk(name string) error {
	f, err := b.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, unified.Qcow2HeadSize)
	n, _ := f.ReadAt(head, 0)
	return unified.CheckQcow2(head[:n])
}

// fromSquashfs makes the form of this host of a squashfs file.
func (b *builder) fromSquashfs(ctx context.Context, p uploadPart) error {
	f, err := b.root.Open(p.File)
	if err != nil {
		return err
	}
	head := make([]byte, unified.SuperblockSize)
	_, err = f.ReadAt(head, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return errs.Invalid("the squashfs filesystem is truncated")
	}
	if _, err := unified.ParseSuperblock(head, p.Size); err != nil {
		return err
	}
	if err := b.s.spaceLeft(); err != nil {
		return err
	}
	if b.s.info.Form == Squashfs {
		b.mark.Form = Squashfs
		return nil
	}
	if err := b.s.unsquash(ctx, b.path(p.File), b.path(treeDir)); err != nil {
		return err
	}
	return b.fromTree(ctx)
}

// fromTree makes the form of this host of an unpacked root file system.
func (b *builder) fromTree(ctx context.Context) error {
	if st, err := b.root.Lstat(treeDir); err != nil || !st.IsDir() {
		return errs.Invalid("the image has no root file system")
	}
	if b.s.info.Form != Erofs {
		b.mark.Form = Directory
		return b.syncAll(treeDir)
	}
	b.mark.Form = Erofs
	watch, stop := b.s.watchSpace(ctx)
	defer stop()
	if err := b.s.makeErofs(watch, b.path(erofsFile), b.path(treeDir)); err != nil {
		if full := firstNoSpace(context.Cause(watch), b.s.spaceLeft()); full != nil {
			return full
		}
		return err
	}
	gone := fsroot.TempPrefix + filepath.Base(b.root.Name()) + ".tree"
	if err := os.Rename(b.path(treeDir), filepath.Join(b.s.root.Name(), gone)); err != nil {
		return err
	}
	b.s.remove(gone)
	return b.sync(erofsFile)
}

func firstNoSpace(all ...error) error {
	for _, err := range all {
		if errs.Is(err, errs.NoSpaceClass) {
			return err
		}
	}
	return nil
}

func (b *builder) path(name string) string { return filepath.Join(b.root.Name(), name) }

// syncAll writes everything of the filesystem that name is on to disk: one call for a whole tree.
func (b *builder) syncAll(name string) error {
	f, err := b.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
