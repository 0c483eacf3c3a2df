package image

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/shoal-project/shoal/image/unified"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
)

// Part names what is uploaded, with the names of the multipart form.
type Part string

// The parts. An upload is one Unified, or Metadata and then Rootfs or RootfsImage.
const (
	Unified     Part = "unified"
	Metadata    Part = "metadata"
	Rootfs      Part = "rootfs"
	RootfsImage Part = "rootfs.img" // the disk of a virtual machine
)

// Upload is an image on its way in. It belongs to one goroutine at a time. End it with [Service.Finish]
// or [Upload.Discard].
type Upload struct {
	s     *Service
	dir   string // name in s.root
	hash  hash.Hash
	size  int64
	parts []uploadPart
	// Progress, when set, is called with the bytes received so far, from the goroutine of Receive.
	Progress func(received int64)
	ended    bool
}

// uploadPart is a part that was received.
type uploadPart struct {
	Part     Part               `json:"part"`
	File     string             `json:"file"` // name in the image's directory
	Filename string             `json:"filename,omitempty"`
	Size     int64              `json:"size"`
	Kind     unified.Kind       `json:"kind"`
	Packed   fsroot.Compression `json:"packed"`
}

// NewUpload begins an upload.
func (s *Service) NewUpload() (*Upload, error) {
	if err := s.spaceLeft(); err != nil {
		return nil, err
	}
	dir := fsroot.TempPrefix + rand.Text()
	if err := s.root.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("begin upload: %w", fsroot.Classify(err))
	}
	return &Upload{s: s, dir: dir, hash: sha256.New()}, nil
}

// Discard throws the upload away; nothing stays. It does nothing after Finish.
func (u *Upload) Discard() {
	if u.ended {
		return
	}
	u.ended = true
	u.s.remove(u.dir)
}

// Size returns the bytes received so far.
func (u *Upload) Size() int64 { return u.size }

// Receive takes one part to the end of r. filename is what the client calls it and is never used as a name on this host.
// The disk is never filled to the last byte (errs.NoSpace).
func (u *Upload) Receive(ctx context.Context, part Part, filename string, r io.Reader) error {
	if err := u.expects(part); err != nil {
		return err
	}
	p := uploadPart{Part: part, File: "upload." + string(part), Filename: cleanFilename(filename)}
	f, err := u.s.root.OpenFile(u.dir+"/"+p.File, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("receive %s: %w", part, fsroot.Classify(err))
	}
	defer f.Close()
	if err := u.copy(ctx, f, &p, r); err != nil {
		return fmt.Errorf("receive %s: %w", part, fsroot.Classify(err))
	}
	head := make([]byte, unified.HeadSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("receive %s: %w", part, err)
	}
	p.Kind, p.Packed = unified.Detect(head[:n])
	u.parts = append(u.parts, p)
	return nil
}

func (u *Upload) expects(part Part) error {
	switch {
	case u.ended:
		return errs.Invalid("the upload has ended")
	case len(u.parts) == 0 && (part == Unified || part == Metadata):
		return nil
	case len(u.parts) == 1 && u.parts[0].Part == Metadata && (part == Rootfs || part == RootfsImage):
		return nil
	}
	return errs.Invalid("unexpected part %.64q of an image: it has the parts metadata and rootfs or rootfs.img, in this order", string(part))
}

func (u *Upload) copy(ctx context.Context, f *os.File, p *uploadPart, r io.Reader) error {
	const checkEvery = 16 << 20
	buf := make([]byte, 1<<20)
	next := int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if n > 0 {
			u.hash.Write(buf[:n])
			if _, err := f.Write(buf[:n]); err != nil {
				return err
			}
			p.Size += int64(n)
			u.size += int64(n)
			if u.Progress != nil {
				u.Progress(u.size)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errs.Invalid("the upload broke off after %d bytes: %v", p.Size, err)
		}
		if p.Size >= next {
			if err := u.s.spaceLeft(); err != nil {
				return err
			}
			next = p.Size + checkEvery
		}
	}
}

// fingerprint returns the SHA-256 of all parts in their order.
func (u *Upload) fingerprint() string { return hex.EncodeToString(u.hash.Sum(nil)) }

// cleanFilename keeps what can be shown of a name that a client gave.
func cleanFilename(s string) string {
	s = filepath.Base(s)
	out := make([]rune, 0, len(s))
	for _, r := range s {
		if r >= ' ' && r != 0x7f && r != '"' && r != '\\' && r != 0xfffd && len(out) < 255 {
			out = append(out, r)
		}
	}
	if s := string(out); s != "." && s != "/" {
		return s
	}
	return ""
}
