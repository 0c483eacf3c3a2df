package unified

import (
	"bytes"
	"encoding/binary"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
)

// Kind is what a file is by its content.
type Kind string

// The kinds of files that images are made of.
const (
	Squashfs Kind = "squashfs"
	Tar      Kind = "tar" // packed or not
	Qcow2    Kind = "qcow2"
	Unknown  Kind = "unknown"
)

// HeadSize is how many bytes of a file Detect wants to see.
const HeadSize = 512

// Detect tells what a file is by its first [HeadSize] bytes; the compression is that of a tar archive.
func Detect(head []byte) (Kind, fsroot.Compression) {
	switch {
	case bytes.HasPrefix(head, []byte("hsqs")):
		return Squashfs, fsroot.None
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		return Qcow2, fsroot.None
	}
	if c := fsroot.DetectCompression(head); c != fsroot.None {
		return Tar, c
	}
	if len(head) >= 262 && bytes.Equal(head[257:262], []byte("ustar")) {
		return Tar, fsroot.None
	}
	return Unknown, fsroot.None
}

// Extension returns how clients call a file of this kind.
func Extension(k Kind, c fsroot.Compression) string {
	switch k {
	case Squashfs:
		return ".squashfs"
	case Qcow2:
		return ".qcow2"
	case Unknown:
		return ".img"
	}
	ext := map[fsroot.Compression]string{
		fsroot.Gzip: ".gz", fsroot.Bzip2: ".bz2", fsroot.XZ: ".xz", fsroot.LZMA: ".lzma", fsroot.Zstd: ".zst",
	}[c]
	return ".tar" + ext
}

// Superblock is what the first 96 bytes of a squashfs filesystem say.
type Superblock struct {
	Inodes    uint32
	BlockSize uint32
	BytesUsed int64 // of the file
}

// SuperblockSize is the size of a squashfs superblock.
const SuperblockSize = 96

// maxInodes bounds what one image may unpack to.
const maxInodes = 4 << 20

// ParseSuperblock reads the superblock of a squashfs file of size bytes and refuses one that cannot be whole: all
// tables must lie inside what is used, and that inside the file.
func ParseSuperblock(b []byte, size int64) (*Superblock, error) {
	if len(b) < SuperblockSize || !bytes.HasPrefix(b, []byte("hsqs")) {
		return nil, errs.Invalid("the root file system is not a squashfs filesystem")
	}
	le := binary.LittleEndian
	sb := &Superblock{Inodes: le.Uint32(b[4:]), BlockSize: le.Uint32(b[12:]), BytesUsed: int64(le.Uint64(b[40:]))}
	log, major, minor := le.Uint16(b[22:]), le.Uint16(b[28:]), le.Uint16(b[30:])
	if major != 4 || minor != 0 {
		return nil, errs.Invalid("squashfs version %d.%d is not supported, only 4.0 is", major, minor)
	}
	if sb.BlockSize < 4<<10 || sb.BlockSize > 1<<20 || log > 20 || sb.BlockSize != 1<<log {
		return nil, errs.Invalid("squashfs block size %d is damaged", sb.BlockSize)
	}
	if sb.BytesUsed < SuperblockSize || sb.BytesUsed > size {
		return nil, errs.Invalid("the squashfs filesystem is truncated: it has %d bytes, the file %d", sb.BytesUsed, size)
	}
	if sb.Inodes == 0 || sb.Inodes > maxInodes {
		return nil, errs.TooLarge("the squashfs filesystem has %d files, at most %d are allowed", sb.Inodes, maxInodes)
	}
	// ids, xattrs, inodes, directories, fragments, exports; all ones: there is none.
	for i, name := range []string{"id", "xattr", "inode", "directory", "fragment", "export"} {
		at := le.Uint64(b[48+8*i:])
		if at != ^uint64(0) && (at < SuperblockSize || at >= uint64(sb.BytesUsed)) {
			return nil, errs.Invalid("the squashfs filesystem is damaged: its %s table is outside of it", name)
		}
	}
	return sb, nil
}
