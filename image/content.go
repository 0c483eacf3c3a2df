package image

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/image/unified"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsmount"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/state"
)

// Names in the directory of an image.
const (
	markerFile = "image.json"
	metaDir    = "meta"
	erofsFile  = "root.erofs"
	treeDir    = "rootfs"
	mountDir   = "root"
)

// marker is image.json: it says that the content is whole, and what it is.
type marker struct {
	Version int          `json:"version"`
	Type    string       `json:"type"` // container or virtual-machine
	Form    Form         `json:"form,omitempty"`
	Parts   []uploadPart `json:"parts"`
}

// content returns the marker of an image whose content is on this node.
func (s *Service) content(fp api.Fingerprint) (*marker, error) {
	b, err := s.root.ReadLimited(fp.String()+"/"+markerFile, 64<<10)
	if err != nil {
		if errs.IsNotFound(err) {
			return nil, errs.NotFound("Image not found")
		}
		return nil, err
	}
	var m marker
	if err := json.Unmarshal(b, &m); err != nil || m.Version != 1 {
		return nil, errs.Unavailable("the content of image %s is of a kind that this version does not know", fp.Short())
	}
	return &m, nil
}

// Hold keeps the image's content for owner (a key such as "instance/default/c1"), also when the image is deleted.
// Idempotent. Once it returns, the content stays until [Service.Release], whatever happens in between.
func (s *Service) Hold(ctx context.Context, fp api.Fingerprint, owner string) error {
	defer s.lock(fp)()
	if _, err := s.content(fp); err != nil {
		return err
	}
	_, err := s.holds.Create(ctx, state.Key(fp.String(), owner), holdRecord{s.deps.Clock.Now()})
	if errs.IsExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hold image %s: %w", fp.Short(), err)
	}
	return nil
}

// Release gives up a hold; content without image and holders goes. Nil when there was no hold.
func (s *Service) Release(ctx context.Context, fp api.Fingerprint, owner string) error {
	err := s.holds.Delete(ctx, state.Key(fp.String(), owner))
	if err != nil && !errs.IsNotFound(err) {
		return fmt.Errorf("release image %s: %w", fp.Short(), err)
	}
	return s.collect(fp)
}

// collect removes the content of an image that has neither record nor holder.
func (s *Service) collect(fp api.Fingerprint) error {
	defer s.lock(fp)()
	if len(s.holds.List(fp.String()+"/")) > 0 {
		return nil
	}
	for _, it := range s.images.List("") {
		if it.Value.Image.Fingerprint == fp.String() {
			return nil
		}
	}
	return s.removeContent(fp)
}

func (s *Service) removeContent(fp api.Fingerprint) error {
	if err := fsmount.Unmount(s.path(fp, mountDir)); err != nil {
		return err
	}
	gone := fsroot.TempPrefix + rand.Text()
	err := s.root.Rename(fp.String(), gone)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove image %s: %w", fp.Short(), err)
	}
	s.remove(gone)
	return nil
}

// remove deletes a staging directory in the background; what a crash cuts off, New sweeps.
func (s *Service) remove(name string) {
	s.removing.Go(func() {
		if err := s.root.RemoveTree(name); err != nil {
			s.deps.Logger.Warn("image leftovers cannot be removed", "err", err)
		}
	})
}

func (s *Service) path(fp api.Fingerprint, name string) string {
	return filepath.Join(s.root.Name(), fp.String(), name)
}

// Mount makes the image's root file system available read-only and returns its path, the same for all instances and
// across restarts of the daemon.
func (s *Service) Mount(_ context.Context, fp api.Fingerprint) (string, error) {
	defer s.lock(fp)()
	m, err := s.content(fp)
	if err != nil {
		return "", err
	}
	if m.Type != api.TypeContainer {
		return "", errs.Invalid("image %s is the disk of a virtual machine", fp.Short())
	}
	target := s.path(fp, mountDir)
	var file string
	switch m.Form {
	case Directory:
		return s.path(fp, treeDir), nil
	case Erofs:
		file = s.path(fp, erofsFile)
	default:
		file = s.path(fp, "upload."+string(Rootfs))
	}
	mounted, err := fsmount.IsMounted(target)
	if err != nil {
		return "", err
	}
	if !mounted {
		if err := os.Mkdir(target, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("mount image %s: %w", fp.Short(), fsroot.Classify(err))
		}
		if err := fsmount.MountImage(string(m.Form), file, target); err != nil {
			return "", fmt.Errorf("mount image %s: %w", fp.Short(), err)
		}
	}
	return target, nil
}

// Metadata returns the image's metadata.yaml.
func (s *Service) Metadata(_ context.Context, fp api.Fingerprint) (*api.ImageMetadata, error) {
	if _, err := s.content(fp); err != nil {
		return nil, err
	}
	b, err := s.root.ReadLimited(fp.String()+"/"+metaDir+"/"+unified.MetadataFile, unified.MaxMetadata)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", fp.Short(), err)
	}
	return unified.ParseMetadata(b)
}

// Template returns the content of a file of the image's templates directory, at most 1 MiB.
func (s *Service) Template(_ context.Context, fp api.Fingerprint, file string) ([]byte, error) {
	if err := unified.CheckTemplateName(file); err != nil {
		return nil, err
	}
	if _, err := s.content(fp); err != nil {
		return nil, err
	}
	b, err := s.root.ReadLimited(fp.String()+"/"+metaDir+"/"+unified.TemplatesDir+"/"+file, unified.MaxTemplate)
	if err != nil {
		return nil, fmt.Errorf("template %s of image %s: %w", file, fp.Short(), err)
	}
	return b, nil
}
