package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/image/unified"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/state"
)

// ImportRequest says what the uploaded bytes shall be.
type ImportRequest struct {
	Project     api.ProjectName
	Fingerprint string            // what the client expects; empty: anything
	Filename    string            // empty: what the last part was called
	Public      bool              //
	AutoUpdate  bool              //
	Properties  map[string]string // over those in metadata.yaml, key by key
	ExpiresAt   time.Time         // zero: expiry_date of metadata.yaml
	Profiles    []string          // nil: ["default"]
	Aliases     []api.ImageAlias  // made together with the image
}

// Finish checks an upload, makes the mountable form and publishes the image. Until it returns nil there is no image, and
// after an error nothing of it stays. errs.Exists when the project has the image; content that another project brought
// is used again.
func (s *Service) Finish(ctx context.Context, u *Upload, req ImportRequest) (*api.Image, error) {
	defer u.Discard()
	if len(u.parts) == 0 || (u.parts[0].Part == Metadata && len(u.parts) < 2) {
		return nil, errs.Invalid("the image is not complete: it has the parts metadata and rootfs, or is one archive with both")
	}
	fp, err := api.ParseFingerprint(u.fingerprint())
	if err != nil {
		return nil, err
	}
	if req.Fingerprint != "" && req.Fingerprint != fp.String() {
		return nil, errs.Invalid("fingerprints don't match, got %s expected %.64s", fp, req.Fingerprint)
	}
	if err := s.mayImport(fp, req); err != nil {
		return nil, err
	}
	meta, err := s.build(ctx, u, fp)
	if err != nil {
		return nil, fmt.Errorf("import image: %w", fsroot.Classify(err))
	}
	return s.publish(ctx, u, fp, meta, req)
}

// mayImport finds what can be refused before the work.
func (s *Service) mayImport(fp api.Fingerprint, req ImportRequest) error {
	if _, err := s.images.Get(imageKey(req.Project, fp.String())); err == nil {
		return errs.Exists("Image with same fingerprint already exists")
	}
	if err := unified.CheckProperties(req.Properties); err != nil {
		return err
	}
	for _, a := range req.Aliases {
		name, err := api.ParseAliasName(a.Name)
		if err != nil {
			return err
		}
		if _, err := s.aliases.Get(aliasKey(req.Project, name)); err == nil {
			return errs.Exists("Alias already exists: %s", name)
		}
	}
	return nil
}

// build makes the content in the staging directory, complete and on disk. Content that is there already is not made
// again.
func (s *Service) build(ctx context.Context, u *Upload, fp api.Fingerprint) (*api.ImageMetadata, error) {
	if _, err := s.content(fp); err == nil {
		if meta, err := s.Metadata(ctx, fp); err == nil {
			return meta, nil
		}
	}
	root, err := s.root.Sub(u.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	b := &builder{s: s, root: root, parts: u.parts, mark: marker{Version: 1, Parts: u.parts, Type: api.TypeContainer}}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.syncUploads() }) // while the processor unpacks
	var meta *api.ImageMetadata
	g.Go(func() (err error) {
		meta, err = b.make(gctx)
		return err
	})
	if err := g.Wait(); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	text, err := json.Marshal(b.mark)
	if err != nil {
		return nil, err
	}
	return meta, root.WriteAtomic(markerFile, text, 0o600)
}

// publish gives the content its name and writes the records, in this order: a record always has content.
func (s *Service) publish(ctx context.Context, u *Upload, fp api.Fingerprint, meta *api.ImageMetadata, req ImportRequest) (*api.Image, error) {
	unlock := s.lock(fp)
	defer func() { unlock() }()
	mark, err := s.content(fp)
	if errs.IsNotFound(err) {
		if mark, err = s.adopt(u, fp); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	rec := record{newImage(fp, meta, mark, req, u.size, s.deps.Clock.Now())}
	ops := []state.Op{s.images.CreateOp(imageKey(req.Project, fp.String()), rec)}
	for _, a := range req.Aliases {
		name, err := api.ParseAliasName(a.Name)
		if err != nil {
			return nil, err
		}
		ops = append(ops, s.aliases.CreateOp(aliasKey(req.Project, name), aliasRecord{fp.String(), a.Description, mark.Type}))
	}
	if _, err := s.deps.State.Txn(ctx, ops...); err != nil {
		refused := s.mayImport(fp, req) // says it in the client's words when somebody was faster
		unlock()
		unlock = func() {}
		return nil, errors.Join(firstOf(refused, err), s.collect(fp))
	}
	img := s.render(req.Project, rec)
	return &img, nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return fmt.Errorf("import image: %w", b)
}

// adopt moves finished staging to its final name. A directory without a marker is none of an image and goes.
func (s *Service) adopt(u *Upload, fp api.Fingerprint) (*marker, error) {
	if err := s.removeContent(fp); err != nil {
		return nil, err
	}
	if err := s.root.RenameSync(u.dir, fp.String()); err != nil {
		return nil, fmt.Errorf("publish image %s: %w", fp.Short(), fsroot.Classify(err))
	}
	u.ended = true
	return s.content(fp)
}

func newImage(fp api.Fingerprint, meta *api.ImageMetadata, mark *marker, req ImportRequest, size int64, now time.Time) api.Image {
	img := api.Image{Architecture: meta.Architecture, Fingerprint: fp.String(), Size: size, Type: mark.Type, UploadedAt: now}
	img.Filename = cleanFilename(req.Filename)
	if img.Filename == "" {
		img.Filename = mark.Parts[len(mark.Parts)-1].Filename
	}
	img.Public, img.AutoUpdate, img.Profiles = req.Public, req.AutoUpdate, slices.Clone(req.Profiles)
	if img.Profiles == nil {
		img.Profiles = []string{api.DefaultProfile.String()}
	}
	img.Properties = map[string]string{}
	maps.Copy(img.Properties, meta.Properties)
	maps.Copy(img.Properties, req.Properties) // what the user says wins, one by one
	img.CreatedAt = time.Unix(meta.CreationDate, 0).UTC()
	img.ExpiresAt = req.ExpiresAt
	if img.ExpiresAt.IsZero() {
		img.ExpiresAt = time.Unix(meta.ExpiryDate, 0).UTC()
	}
	return img
}
