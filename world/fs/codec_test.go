package fs

import (
	"bytes"
	"encoding/json"
	iofs "io/fs"
	"strings"
	"testing"
)

func seeds(f *testing.F) {
	f.Add([]byte(`{"v":1,"mode":420,"size":3,"mtime":1,"data":"YWJj"}`), int64(3))
	f.Add([]byte(`{"v":1,"mode":420,"size":9999,"mtime":1,"manifest":"`+strings.Repeat("ab", 32)+`"}`), int64(9999))
	f.Add([]byte(`{"v":1,"mode":134218239,"mtime":1,"target":"x"}`), int64(0))
	f.Add([]byte(`{"v":1,"id":"00000000000000ff","chunk":4096}`), int64(0))
	f.Add([]byte(`{"v":1,"ino":"0000000000000003","type":0}`), int64(0))
	f.Add([]byte(`{"v":2}`), int64(0))
	f.Add(manifest{MinChunk, make([]Hash, 3)}.encode(), int64(3*MinChunk))
}

// FuzzDecode feeds every decoder what somebody may have put into the store. What is accepted keeps the promises that the rest relies on, and is
// written again as something that reads the same.
func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if n, err := decodeInode(b); err == nil {
			checkInode(t, n)
			m, err := decodeInode(encode(n))
			if err != nil || !bytes.Equal(encode(m), encode(n)) {
				t.Errorf("%s is read again as %s, %v", encode(n), encode(m), err)
			}
		}
		if e, err := decodeEntry(b); err == nil && (e.Type&^iofs.ModeType != 0 || e.ino.String() != e.Ino) {
			t.Errorf("entry %+v", e)
		}
		if v, err := decodeVolume(b); err == nil && (v.Chunk < MinChunk || v.Chunk > MaxChunk || strings.Contains(v.ID, "/")) {
			t.Errorf("volume %+v", v)
		}
		if m, err := decodeManifest(b, size); err == nil {
			if int64(len(m.sums))*m.chunk < size || !bytes.Equal(m.encode(), b) {
				t.Errorf("manifest of %d × %d for %d", len(m.sums), m.chunk, size)
			}
		}
		_, _ = parseHash(string(b))
		if i, err := parseIno(string(b)); err == nil && i.String() != string(b) {
			t.Errorf("inode %s of %q", i, b)
		}
	})
}

func checkInode(t *testing.T, n inode) {
	t.Helper()
	switch {
	case n.Mode.IsRegular() && n.Target == "" && n.Size >= 0 && (n.Manifest != "" || int64(len(n.Data)) == n.Size):
	case n.Mode.IsDir() && n.Size == 0 && n.Target == "" && n.Manifest == "":
	case n.Mode.Type() == iofs.ModeSymlink && n.Target != "" && n.Size == 0 && n.Manifest == "":
	default:
		t.Errorf("accepted %s", encode(n))
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{
		``, `{}`, `null`, `{"v":1,"mode":420,"size":1}`, `{"v":1,"mode":420,"size":-1}`, `{"v":1,"mode":420,"manifest":"zz"}`,
		`{"v":1,"mode":67108864}`, `{"v":1,"mode":134217728}`, `{"v":1,"mode":2147483648,"size":1,"data":"YQ=="}`, `{"v":2,"mode":420}`,
		`{"v":1,"mode":420,"size":99999999999999}`,
	} {
		if n, err := decodeInode([]byte(s)); err == nil {
			t.Errorf("%s was read as %+v", s, n)
		}
	}
	if !json.Valid(encode(inode{})) {
		t.Error("not JSON")
	}
}
