package fs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	iofs "io/fs"
	"strconv"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// schema is the version of what is stored. What has another one is not touched.
const schema = 1

// Hash is the SHA-256 of a blob; the zero Hash is a chunk of zeros that is not stored.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

func parseHash(s string) (h Hash, err error) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == len(h) && hex.EncodeToString(b) == s {
		return Hash(b), nil
	}
	return h, errs.Invalid("%q is not the hash of a blob", s)
}

// volume says which tree a volume is.
type volume struct {
	V       int    `json:"v"`
	ID      string `json:"id"`
	Chunk   int64  `json:"chunk"`
	Created int64  `json:"created"` // ns since 1970
}

// entry is a name in a directory.
type entry struct {
	V    int           `json:"v"`
	Ino  string        `json:"ino"`
	Type iofs.FileMode `json:"type"` // the type bits of the inode, which never change
	ino  Ino
}

// inode is a file, directory or symbolic link.
type inode struct {
	V        int           `json:"v"`
	Mode     iofs.FileMode `json:"mode"`
	UID      uint32        `json:"uid,omitempty"`
	GID      uint32        `json:"gid,omitempty"`
	Size     int64         `json:"size,omitempty"`
	Mtime    int64         `json:"mtime"` // ns since 1970
	Data     []byte        `json:"data,omitempty"`
	Manifest string        `json:"manifest,omitempty"`
	Target   string        `json:"target,omitempty"`
	Tag      string        `json:"tag,omitempty"` // of the commit that wrote the content
}

// modeBits are those that chmod changes.
const modeBits = iofs.ModePerm | iofs.ModeSetuid | iofs.ModeSetgid | iofs.ModeSticky

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of numbers, strings and bytes: cannot be
	}
	return b
}

func decodeStrict(b []byte, v any, version *int) error {
	if err := json.Unmarshal(b, v); err != nil {
		return errs.Invalid("not the JSON that was expected: %w", err)
	}
	if *version != schema {
		return errs.Unsupported("schema version %d; this version of shoal knows %d", *version, schema)
	}
	return nil
}

func decodeVolume(b []byte) (v volume, err error) {
	if err := decodeStrict(b, &v, &v.V); err != nil {
		return v, err
	}
	if _, err := parseIno(v.ID); err != nil || v.Chunk < MinChunk || v.Chunk > MaxChunk {
		return v, errs.Invalid("volume with id %q and chunks of %d bytes", v.ID, v.Chunk)
	}
	return v, nil
}

func typeOK(m iofs.FileMode) bool { return m == 0 || m == iofs.ModeDir || m == iofs.ModeSymlink }

func decodeEntry(b []byte) (e entry, err error) {
	if err := decodeStrict(b, &e, &e.V); err != nil {
		return e, err
	}
	if e.ino, err = parseIno(e.Ino); err != nil {
		return e, err
	}
	if !typeOK(e.Type) {
		return e, errs.Invalid("entry of type %v", e.Type)
	}
	return e, nil
}

func decodeInode(b []byte) (n inode, err error) {
	if err := decodeStrict(b, &n, &n.V); err != nil {
		return n, err
	}
	file, link := n.Mode.IsRegular(), n.Mode.Type() == iofs.ModeSymlink
	switch {
	case !typeOK(n.Mode.Type()) || n.Mode&^(modeBits|iofs.ModeType) != 0:
		err = errs.Invalid("mode %v", n.Mode)
	case n.Size < 0 || n.Size > MaxChunk*MaxChunks:
		err = errs.Invalid("size %d", n.Size)
	case !file && (n.Size != 0 || n.Data != nil || n.Manifest != ""):
		err = errs.Invalid("content in what is no file")
	case file && n.Manifest == "" && int64(len(n.Data)) != n.Size || len(n.Data) > MaxInline:
		err = errs.Invalid("%d bytes of content in a file of %d", len(n.Data), n.Size)
	case n.Manifest != "" && n.Data != nil:
		err = errs.Invalid("both content and a manifest")
	case link != (n.Target != "") || len(n.Target) > MaxPath:
		err = errs.Invalid("link target %.40q", n.Target)
	}
	if err == nil && n.Manifest != "" {
		_, err = parseHash(n.Manifest)
	}
	return n, err
}

// manifest lists the chunks of a file. All are chunk bytes long, but for what lies beyond the end of the file; a shorter one goes on with zeros.
type manifest struct {
	chunk int64
	sums  []Hash
}

var magic = []byte("shoalmf1")

func (m manifest) encode() []byte {
	b := make([]byte, 0, len(magic)+8+len(m.sums)*sha256.Size)
	b = binary.BigEndian.AppendUint64(append(b, magic...), uint64(m.chunk))
	for _, h := range m.sums {
		b = append(b, h[:]...)
	}
	return b
}

func decodeManifest(b []byte, size int64) (m manifest, err error) {
	if !bytes.HasPrefix(b, magic) || len(b) < len(magic)+8 || (len(b)-len(magic)-8)%sha256.Size != 0 {
		return m, errs.Invalid("not a manifest")
	}
	b = b[len(magic):]
	m.chunk = int64(binary.BigEndian.Uint64(b))
	if m.chunk < MinChunk || m.chunk > MaxChunk {
		return m, errs.Invalid("manifest with chunks of %d bytes", m.chunk)
	}
	b = b[8:]
	n := len(b) / sha256.Size
	if n > MaxChunks || int64(n) != (size+m.chunk-1)/m.chunk {
		return m, errs.Invalid("manifest of %d chunks of %d bytes for a file of %d", n, m.chunk, size)
	}
	m.sums = make([]Hash, n)
	for i := range m.sums {
		copy(m.sums[i][:], b[i*sha256.Size:])
	}
	return m, nil
}

// A time in a key of its own is decimal nanoseconds since 1970.
func encodeTime(ns int64) []byte { return strconv.AppendInt(nil, ns, 10) }

// decodeTime returns what stands there, or else when nothing does that is a time.
func decodeTime(b []byte, otherwise int64) int64 {
	if ns, err := strconv.ParseInt(string(b), 10, 64); err == nil {
		return ns
	}
	return otherwise
}

// Info describes a file. It implements io/fs.FileInfo; Sys returns *Info itself.
type Info struct {
	name     string
	n        inode
	Ino      Ino
	Revision int64 // at which the inode was last written
}

func (i *Info) Name() string        { return i.name }
func (i *Info) Mode() iofs.FileMode { return i.n.Mode }
func (i *Info) ModTime() time.Time  { return time.Unix(0, i.n.Mtime) }
func (i *Info) IsDir() bool         { return i.n.Mode.IsDir() }
func (i *Info) Sys() any            { return i }

// Size is the length of a file's content, of a link's target, and 0 for directories.
func (i *Info) Size() int64 { return i.n.Size + int64(len(i.n.Target)) }

// Owner returns the numbers that Chown set, 0 at first.
func (i *Info) Owner() (uid, gid uint32) { return i.n.UID, i.n.GID }

// Target returns where a symbolic link leads.
func (i *Info) Target() string { return i.n.Target }

// ETag changes with each change of the inode, and is not used again for another.
func (i *Info) ETag() string { return i.Ino.String() + "-" + Ino(i.Revision).String() }
