package unified

import (
	"bytes"
	"encoding/binary"

	"github.com/shoal-project/shoal/internal/errs"
)

// Qcow2HeadSize is how many bytes CheckQcow2 needs.
const Qcow2HeadSize = 104

// maxDisk bounds the size that a disk may claim, in bytes.
const maxDisk = 16 << 40

// CheckQcow2 refuses disks that would make QEMU read other files of the host (a backing file, an external data file), and
// those that are encrypted or claim absurd sizes. head is the beginning of the file.
func CheckQcow2(head []byte) error {
	if len(head) < Qcow2HeadSize || !bytes.HasPrefix(head, []byte("QFI\xfb")) {
		return errs.Invalid("the disk is not a qcow2 file")
	}
	be := binary.BigEndian
	version, clusterBits, size := be.Uint32(head[4:]), be.Uint32(head[20:]), be.Uint64(head[24:])
	switch {
	case version != 2 && version != 3:
		return errs.Invalid("qcow2 version %d is not supported, only 2 and 3 are", version)
	case be.Uint64(head[8:]) != 0 || be.Uint32(head[16:]) != 0:
		return errs.Invalid("the disk has a backing file; an image must be complete in itself")
	case clusterBits < 9 || clusterBits > 21:
		return errs.Invalid("the qcow2 disk is damaged: clusters of 2^%d bytes", clusterBits)
	case size == 0 || size > maxDisk:
		return errs.TooLarge("the disk claims %d bytes, at most %d are allowed", size, int64(maxDisk))
	case be.Uint32(head[32:]) != 0:
		return errs.Invalid("the disk is encrypted")
	}
	// The bits of incompatible features: 0 dirty, 1 corrupt, 2 external data file, 3 compression type, 4 extended L2.
	if version == 3 && be.Uint64(head[72:])&^(1<<3|1<<4) != 0 {
		return errs.Invalid("the disk is dirty, corrupt, keeps its data in another file, or needs features that are not known (%#x)", be.Uint64(head[72:]))
	}
	return nil
}
