package fs

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/shoal-project/shoal/internal/errs"
)

// Limits. They keep every request below what the database takes.
const (
	MaxName   = 255     // bytes of a name in a directory; it is UTF-8 without NUL
	MaxPath   = 4096    // bytes of a path, and of the target of a symbolic link
	MaxDepth  = 255     // directories above each other
	MaxLinks  = 40      // symbolic links on the way to a file
	MaxInline = 4 << 10 // bytes of content that stand in the inode

	MinChunk     = 4 << 10
	DefaultChunk = 512 << 10
	MaxChunk     = 960 << 10 // a transaction takes 1 MiB
	MaxChunks    = 16384     // of a file: 8 GiB in chunks of the default size
)

// Ino names an inode within its volume. It is never used again.
type Ino uint64

const (
	rootIno  Ino = 1
	trashIno Ino = 2 // entries of detached trees; no path leads there
)

func (i Ino) String() string { return fmt.Sprintf("%016x", uint64(i)) }

func parseIno(s string) (Ino, error) {
	var b [8]byte
	if len(s) != 16 || s != strings.ToLower(s) {
		return 0, errs.Invalid("inode %q is not 16 hexadecimal digits", s)
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return 0, errs.Invalid("inode %q is not 16 hexadecimal digits", s)
	}
	return Ino(binary.BigEndian.Uint64(b[:])), nil
}

// newIno draws a number; that it is free is part of the transaction that uses it.
func newIno() Ino {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:]) // never fails
		if i := Ino(binary.BigEndian.Uint64(b[:]) >> 1); i > 0xffff {
			return i
		}
	}
}

// newID draws the name of a volume's tree, a session or a commit.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

var volumeName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func checkVolume(name string) error {
	if !volumeName.MatchString(name) {
		return errs.Invalid("volume name %q: want at most 63 of a-z, 0-9, '.', '_', '-', the first a letter or digit", name)
	}
	return nil
}

// nameOK says whether a directory can have an entry of that name.
func nameOK(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= MaxName && utf8.ValidString(name) && !strings.ContainsAny(name, "/\x00")
}

func (s *Store) volKey(name string) string   { return s.prefix + "vol/" + name }
func (s *Store) useKey(h Hash) string        { return s.prefix + "use/" + h.String() }
func (s *Store) blobKey(h Hash) string       { return s.prefix + "blob/" + h.String() }
func (s *Store) sessionKey(id string) string { return s.prefix + "session/" + id }
func (s *Store) pinPrefix(session, up string) string {
	return s.prefix + "pin/" + session + "/" + up + "/"
}
func (s *Store) treePrefix(id string) string            { return s.prefix + "tree/" + id + "/" }
func (v *view) inodeKey(i Ino) string                   { return v.st.treePrefix(v.vol.ID) + "i/" + i.String() }
func (v *view) changedKey(i Ino) string                 { return v.st.treePrefix(v.vol.ID) + "m/" + i.String() }
func (v *view) dirPrefix(i Ino) string                  { return v.st.treePrefix(v.vol.ID) + "d/" + i.String() + "/" }
func (v *view) entryKey(parent Ino, name string) string { return v.dirPrefix(parent) + name }
