package fsroot

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// Compression names how a stream is packed, with the words of the compression_algorithm key.
type Compression string

// The compressions that [Decompress] knows.
const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Bzip2 Compression = "bzip2"
	XZ    Compression = "xz"
	LZMA  Compression = "lzma"
	Zstd  Compression = "zstd"
)

// maxWindow is the largest dictionary or window that an archive may ask for: what "xz -9" (64 MiB) and
// "zstd --ultra" (128 MiB) need.
const maxWindow = 128 << 20

// DetectCompression tells the compression by the first bytes of a stream (13 are enough); [None] for what is unknown.
func DetectCompression(magic []byte) Compression {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return Gzip
	case bytes.HasPrefix(magic, []byte("BZh")):
		return Bzip2
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		return XZ
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case len(magic) >= 13 && magic[0] == 0x5d && magic[1] == 0 && magic[2] == 0:
		return LZMA // no real magic: the properties that every packer writes, a dictionary of at least 64 KiB
	}
	return None
}

// Decompress detects how r is packed and returns the plain stream, which gives errs.TooLarge when it is longer than max
// bytes (0: no limit), errs.InvalidInput when it is damaged or truncated. Memory is bounded whatever the stream asks
// for. Read it to its end: only there the checksum is compared. Close it, r stays open.
func Decompress(r io.Reader, max int64) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(32)
	if err != nil && err != io.EOF {
		return nil, None, fmt.Errorf("read archive: %w", err)
	}
	kind := DetectCompression(magic)
	p := &plainStream{kind: kind, left: max, limited: max > 0, max: max}
	switch kind {
	case None:
		p.r = br
	case Gzip:
		p.r, err = gzip.NewReader(br)
	case Bzip2:
		p.r, err = bzip2.NewReader(br), nil
	case XZ:
		if err = checkXZWindow(magic); err == nil {
			p.r, err = xz.NewReader(br)
		}
	case LZMA:
		if w := binary.LittleEndian.Uint32(magic[1:5]); w > maxWindow {
			err = errs.TooLarge("the lzma dictionary has %d bytes, at most %d are allowed", w, maxWindow)
		} else {
			p.r, err = lzma.NewReader(br)
		}
	case Zstd:
		var d *zstd.Decoder
		d, err = zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err == nil {
			p.r, p.close = d, d.Close
		}
	}
	if err != nil {
		return nil, kind, p.wrap(err)
	}
	return p, kind, nil
}

// checkXZWindow looks at the dictionary size in the first block header: the stream header has 12 bytes, then come
// header size, block flags, optional sizes, and the filter (id 0x21, one byte of properties).
func checkXZWindow(head []byte) error {
	if len(head) < 16 || head[12] == 0 { // an empty stream has an index at once
		return nil
	}
	i := 14
	for sizes := head[13] >> 6 & 3; sizes != 0; sizes &= sizes - 1 {
		for i < len(head) && head[i]&0x80 != 0 {
			i++
		}
		i++
	}
	if i+2 >= len(head) || head[i] != 0x21 || head[i+1] != 1 {
		return nil // other filters are refused by the decoder
	}
	size, err := lzma.DecodeDictCap(head[i+2])
	if err != nil || size > maxWindow {
		return errs.TooLarge("the xz dictionary has %d bytes, at most %d are allowed", size, maxWindow)
	}
	return nil
}

// plainStream limits and classifies what a decoder gives.
type plainStream struct {
	r       io.Reader
	kind    Compression
	close   func()
	left    int64
	max     int64
	limited bool
	err     error
}

func (p *plainStream) Read(b []byte) (n int, err error) {
	if p.err != nil {
		return 0, p.err
	}
	// Decoders of hostile input have panicked before; that must not end the daemon.
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, errs.Invalid("%s stream: decoder gave up: %v", p.kind, v)
			p.err = err
		}
	}()
	if p.limited && int64(len(b)) > p.left+1 {
		b = b[:p.left+1]
	}
	n, err = p.r.Read(b)
	if p.limited && int64(n) > p.left {
		n, err = int(p.left), errs.TooLarge("the unpacked data has more than %d bytes", p.max)
	}
	p.left -= int64(n)
	if err != nil && err != io.EOF {
		err = p.wrap(err)
	}
	p.err = err
	return n, err
}

func (p *plainStream) wrap(err error) error {
	if err == nil || errs.ClassOf(err) != errs.Internal {
		return err
	}
	if p.kind == None {
		return fmt.Errorf("read archive: %w", err)
	}
	return errs.Classify(errs.InvalidInput, fmt.Errorf("%s stream: %w", p.kind, err))
}

// Close frees the decoder.
func (p *plainStream) Close() error {
	if p.close != nil {
		p.close()
		p.close = nil
	}
	p.err = io.ErrClosedPipe
	return nil
}
