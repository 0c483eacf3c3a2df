package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctls of include/uapi/linux/btrfs.h that are used here. An exec of the btrfs program takes milliseconds, an
// ioctl microseconds, and has no output to parse.
const (
	iocSubvolCreate   = 0x5000940e // _IOW(0x94, 14, 4096)
	iocSnapDestroy    = 0x5000940f // _IOW(0x94, 15, 4096)
	iocSnapDestroyV2  = 0x5000943f // _IOW(0x94, 63, 4096)
	iocSnapCreateV2   = 0x50009417 // _IOW(0x94, 23, 4096)
	iocResize         = 0x50009403 // _IOW(0x94, 3, 4096)
	iocSync           = 0x9408     // _IO(0x94, 8)
	iocTreeSearch     = 0xd0009411 // _IOWR(0x94, 17, 4096)
	iocInoLookup      = 0xd0009412 // _IOWR(0x94, 18, 4096)
	iocQuotaCtl       = 0xc0109428 // _IOWR(0x94, 40, 16)
	iocQgroupCreate   = 0x4010942a // _IOW(0x94, 42, 16)
	iocQgroupLimit    = 0x8030942b // _IOR(0x94, 43, 48)
	iocQuotaRescan    = 0x4040942c // _IOW(0x94, 44, 64)
	quotaEnable       = 1
	limitMaxRfer      = 1 << 0
	specByID          = 1 << 4
	rootTree          = 1
	quotaTree         = 8
	firstFree         = 256 // the inode of every subvolume's root and the lowest subvolume id
	rootRefKey        = 156
	qgroupStatusKey   = 240
	qgroupInfoKey     = 242
	argsSize          = 4096
	searchHeaderSize  = 104
	maxSearchedVolume = ^uint64(0) - 255
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [argsSize - 8]byte
}

// volArgsV2 is struct btrfs_ioctl_vol_args_v2, with the union seen as a subvolume id.
type volArgsV2 struct {
	fd, transid, flags uint64
	_                  [4]uint64
	subvolid           uint64
	_                  [argsSize - 64]byte
}

func ioctl(f *os.File, req uintptr, arg unsafe.Pointer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, uintptr(arg))
	if e != 0 {
		return e
	}
	return nil
}

func nameArgs(name string) (*volArgs, error) {
	a := &volArgs{}
	if len(name) == 0 || len(name) > 255 {
		return nil, unix.ENAMETOOLONG
	}
	copy(a.name[:], name)
	return a, nil
}

// createSubvolume makes an empty subvolume in dir.
func createSubvolume(dir *os.File, name string) error {
	a, err := nameArgs(name)
	if err != nil {
		return err
	}
	return ioctl(dir, iocSubvolCreate, unsafe.Pointer(a))
}

// snapshotSubvolume makes a writable snapshot of the subvolume src in dir, as of this moment: what was written to
// it before the call is in it.
func snapshotSubvolume(dir, src *os.File, name string) error {
	var a struct {
		fd             int64
		transid, flags uint64
		_              [4]uint64
		name           [argsSize - 56]byte
	}
	if len(name) == 0 || len(name) > 255 {
		return unix.ENAMETOOLONG
	}
	a.fd = int64(src.Fd())
	copy(a.name[:], name)
	return ioctl(dir, iocSnapCreateV2, unsafe.Pointer(&a))
}

// destroySubvolume removes a subvolume that has no other inside; the kernel gives its space back in the
// background.
func destroySubvolume(dir *os.File, name string) error {
	a, err := nameArgs(name)
	if err != nil {
		return err
	}
	return ioctl(dir, iocSnapDestroy, unsafe.Pointer(a))
}

// destroySubvolumeID removes the subvolume with an id, wherever in fs it is.
func destroySubvolumeID(fs *os.File, id uint64) error {
	return ioctl(fs, iocSnapDestroyV2, unsafe.Pointer(&volArgsV2{flags: specByID, subvolid: id}))
}

// subvolumeID returns the id of the subvolume that f is in.
func subvolumeID(f *os.File) (uint64, error) {
	var a struct {
		treeid, objectid uint64
		_                [argsSize - 16]byte
	}
	a.objectid = firstFree
	if err := ioctl(f, iocInoLookup, unsafe.Pointer(&a)); err != nil {
		return 0, fmt.Errorf("ask for the subvolume id: %w", err)
	}
	return a.treeid, nil
}

// isSubvolume reports whether f is the root of a subvolume.
func isSubvolume(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, err
	}
	return st.Ino == firstFree, nil
}

// resizeMax lets the filesystem use all of its device.
func resizeMax(fs *os.File) error {
	a, _ := nameArgs("max")
	return ioctl(fs, iocResize, unsafe.Pointer(a))
}

// startCleaner commits and wakes the kernel's cleaner, which gives back the space of deleted subvolumes: left alone
// it looks every 30 seconds, also on a full filesystem.
func startCleaner(fs *os.File) { _ = ioctl(fs, iocSync, nil) }

// enableQuota switches quota groups on.
func enableQuota(fs *os.File) error {
	a := struct{ cmd, status uint64 }{cmd: quotaEnable}
	err := ioctl(fs, iocQuotaCtl, unsafe.Pointer(&a))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// limitSubvolume limits what the subvolume that f is in refers to, in bytes; 0 takes the limit away.
func limitSubvolume(f *os.File, size int64) error {
	a := struct{ qgroup, flags, maxRfer, maxExcl, rsvRfer, rsvExcl uint64 }{flags: limitMaxRfer, maxRfer: uint64(size)}
	if size <= 0 {
		a.maxRfer = ^uint64(0) // CLEAR_VALUE of the kernel
	}
	return ioctl(f, iocQgroupLimit, unsafe.Pointer(&a))
}

// destroyQgroup removes the quota group of a subvolume that is gone; older kernels leave it behind.
func destroyQgroup(fs *os.File, id uint64) error {
	a := struct{ create, id uint64 }{0, id}
	return ioctl(fs, iocQgroupCreate, unsafe.Pointer(&a))
}

// item is one item of a tree: its key (objectid, kind, offset) and what it holds.
type item struct {
	objectid uint64
	kind     uint32
	offset   uint64
	data     []byte
}

// search returns the items of one kind with objectid in [minObj, maxObj] and offset in [minOff, maxOff]. The
// kernel takes the three as one key, so the others that lie between come along and are sorted out here.
func search(fs *os.File, tree uint64, kind uint32, minObj, maxObj, minOff, maxOff uint64) ([]item, error) {
	var out []item
	from := item{objectid: minObj, kind: kind, offset: minOff}
	for {
		buf := make([]byte, argsSize)
		le := binary.LittleEndian
		for i, v := range []uint64{tree, from.objectid, maxObj, from.offset, maxOff, 0, ^uint64(0)} {
			le.PutUint64(buf[i*8:], v)
		}
		le.PutUint32(buf[56:], from.kind)
		le.PutUint32(buf[60:], kind)
		le.PutUint32(buf[64:], 1<<20)
		if err := ioctl(fs, iocTreeSearch, unsafe.Pointer(&buf[0])); err != nil {
			return nil, err
		}
		items, err := parseItems(buf[searchHeaderSize:], le.Uint32(buf[64:]))
		if err != nil || len(items) == 0 {
			return out, err
		}
		for _, it := range items {
			if it.kind == kind && it.offset >= minOff && it.offset <= maxOff {
				out = append(out, it)
			}
		}
		from = items[len(items)-1]
		if from.offset++; from.offset == 0 {
			if from.kind++; from.kind > 255 {
				from.kind = 0
				if from.objectid++; from.objectid == 0 {
					return out, nil
				}
			}
		}
	}
}

// parseItems takes apart the n items that a tree search returned.
func parseItems(b []byte, n uint32) ([]item, error) {
	var out []item
	le := binary.LittleEndian
	for range n {
		const header = 32 // transid, objectid, offset: 8 bytes each; type, len: 4 bytes each
		if len(b) < header {
			return nil, fmt.Errorf("tree search: header of %d bytes", len(b))
		}
		size := le.Uint32(b[28:])
		if uint64(size) > uint64(len(b)-header) {
			return nil, fmt.Errorf("tree search: item of %d bytes in %d", size, len(b)-header)
		}
		out = append(out, item{le.Uint64(b[8:]), le.Uint32(b[24:]), le.Uint64(b[16:]), b[header : header+size]})
		b = b[header+size:]
	}
	return out, nil
}

// nested returns the ids of the subvolumes directly inside subvolume id.
func nested(fs *os.File, id uint64) ([]uint64, error) {
	items, err := search(fs, rootTree, rootRefKey, id, id, 0, ^uint64(0))
	if err != nil {
		return nil, fmt.Errorf("list nested subvolumes: %w", err)
	}
	var out []uint64
	for _, it := range items {
		out = append(out, it.offset)
	}
	return out, nil
}

// referenced returns the bytes that the subvolume refers to, as of the last commit; ok is false when quotas are off.
func referenced(fs *os.File, id uint64) (n int64, ok bool, err error) {
	items, err := search(fs, quotaTree, qgroupInfoKey, 0, 0, id, id)
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read quota group: %w", err)
	}
	for _, it := range items {
		if len(it.data) >= 16 {
			return int64(binary.LittleEndian.Uint64(it.data[8:])), true, nil
		}
	}
	return 0, false, nil
}

// repairQuota has the kernel count anew, in the background, when it marked the numbers of the quota groups as
// inconsistent: until then no limit holds.
func repairQuota(fs *os.File) error {
	const inconsistent = 1 << 2
	items, err := search(fs, quotaTree, qgroupStatusKey, 0, 0, 0, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read quota status: %w", err)
	}
	for _, it := range items {
		if len(it.data) < 24 || binary.LittleEndian.Uint64(it.data[16:])&inconsistent == 0 {
			continue
		}
		var args [8]uint64
		if err := ioctl(fs, iocQuotaRescan, unsafe.Pointer(&args)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("count quotas anew: %w", err)
		}
	}
	return nil
}

// staleQgroups returns the ids of quota groups whose subvolume is gone and whose numbers have come down to nothing.
// The numbers follow a commit later than the subvolume goes, and a group that is removed before makes the kernel mark
// all groups as inconsistent: no limit on the whole filesystem holds then.
func staleQgroups(fs *os.File) ([]uint64, error) {
	groups, err := search(fs, quotaTree, qgroupInfoKey, 0, 0, firstFree, maxSearchedVolume)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	const rootItemKey = 132
	roots, err := search(fs, rootTree, rootItemKey, firstFree, maxSearchedVolume, 0, ^uint64(0))
	if err != nil {
		return nil, err
	}
	alive := map[uint64]bool{}
	for _, r := range roots {
		alive[r.objectid] = true
	}
	var out []uint64
	for _, g := range groups {
		if id := g.offset; id>>48 == 0 && !alive[id] && emptyQgroup(g.data) {
			out = append(out, id)
		}
	}
	return out, nil
}

// emptyQgroup says whether a quota group refers to nothing, by the numbers of its info item: generation, referenced,
// referenced compressed, exclusive, exclusive compressed.
func emptyQgroup(info []byte) bool {
	if len(info) < 40 {
		return false
	}
	for _, b := range info[8:40] {
		if b != 0 {
			return false
		}
	}
	return true
}
