package fsroot_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// bzip2 of "hello hello hello\n"; the standard library cannot write it.
const bzip2Hello = "QlpoOTFBWSZTWeW18wkAAARRAAAQQAACRKAAIbUYDAKQacKjC7kinChIctr5hIA="

func pack(t testing.TB, kind fsroot.Compression, plain []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case fsroot.Gzip:
		w = gzip.NewWriter(&b)
	case fsroot.XZ:
		w, err = xz.NewWriter(&b)
	case fsroot.LZMA:
		w, err = lzma.NewWriter(&b)
	case fsroot.Zstd:
		w, err = zstd.NewWriter(&b)
	default:
		return plain
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpackAll(packed io.Reader, max int64) ([]byte, fsroot.Compression, error) {
	r, kind, err := fsroot.Decompress(packed, max)
	if err != nil {
		return nil, kind, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return b, kind, err
}

var kinds = []fsroot.Compression{fsroot.None, fsroot.Gzip, fsroot.XZ, fsroot.LZMA, fsroot.Zstd}

func TestDecompress(t *testing.T) {
	plain := bytes.Repeat([]byte("some words of the plain text; "), 10000)
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			packed := pack(t, kind, plain)
			got, k, err := unpackAll(iotest.HalfReader(bytes.NewReader(packed)), int64(len(plain)))
			if err != nil || k != kind || !bytes.Equal(got, plain) {
				t.Errorf("%v, %v, %d bytes", k, err, len(got))
			}
			got, _, err = unpackAll(bytes.NewReader(packed), int64(len(plain))-1)
			if !errs.Is(err, errs.TooLargeClass) || len(got) != len(plain)-1 {
				t.Errorf("over the limit: %v, %d bytes", err, len(got))
			}
			if kind == fsroot.None {
				return
			}
			if _, _, err = unpackAll(bytes.NewReader(packed[:len(packed)-3]), 0); !errs.Is(err, errs.InvalidInput) {
				t.Errorf("truncated: %v", err)
			}
			damaged := bytes.Clone(packed)
			damaged[len(damaged)/2] ^= 0x55
			if _, _, err = unpackAll(bytes.NewReader(damaged), 1<<24); kind != fsroot.LZMA && err == nil { // lzma has no checksum
				t.Error("damage was not seen")
			}
		})
	}
}

func TestDecompressBzip2(t *testing.T) {
	packed, err := base64.StdEncoding.DecodeString(bzip2Hello)
	if err != nil {
		t.Fatal(err)
	}
	got, k, err := unpackAll(bytes.NewReader(packed), 0)
	if err != nil || k != fsroot.Bzip2 || string(got) != "hello hello hello\n" {
		t.Errorf("%q %v %v", got, k, err)
	}
}

// A stream may not decide how much memory the daemon takes.
func TestDecompressBoundsMemory(t *testing.T) {
	var wide bytes.Buffer
	w, err := zstd.NewWriter(&wide, zstd.WithWindowSize(256<<20))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil { // no content size in the header: the window counts
		t.Fatal(err)
	}
	packedXZ := pack(t, fsroot.XZ, []byte("x"))
	packedXZ[16] = 40 // a dictionary of 4 GiB
	packedLZMA := pack(t, fsroot.LZMA, []byte("x"))
	copy(packedLZMA[1:5], "\x00\x00\x00\xff")
	for name, packed := range map[string][]byte{"zstd": wide.Bytes(), "xz": packedXZ, "lzma": packedLZMA} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := unpackAll(bytes.NewReader(packed), 1<<30)
		runtime.ReadMemStats(&after)
		if c := errs.ClassOf(err); err == nil || c != errs.TooLargeClass && c != errs.InvalidInput {
			t.Errorf("%s: %v", name, err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 256<<20 {
			t.Errorf("%s: allocated %d MiB", name, grown>>20)
		}
	}
}

func TestDecompressPassesOnReadErrors(t *testing.T) {
	broken := errors.New("connection lost")
	if _, _, err := fsroot.Decompress(iotest.ErrReader(broken), 0); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	plain := io.MultiReader(strings.NewReader(strings.Repeat("x", 100)), iotest.ErrReader(broken))
	if _, _, err := unpackAll(plain, 0); !errors.Is(err, broken) || errs.ClassOf(err) != errs.Internal {
		t.Errorf("got %v", err)
	}
}

func FuzzDecompress(f *testing.F) {
	for _, k := range kinds {
		f.Add(pack(f, k, []byte("hello hello hello")))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, _, _ := unpackAll(bytes.NewReader(data), 1<<20); len(got) > 1<<20 {
			t.Errorf("%d bytes came out", len(got))
		}
	})
}
