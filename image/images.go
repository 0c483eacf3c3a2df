package image

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/image/unified"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

func imageKey(project api.ProjectName, fp string) string { return state.Key(project.String(), fp) }

// Import takes an image from readers: Upload and Finish in one call. rootfs nil means that metadata is a
// unified archive; part is Rootfs or RootfsImage otherwise.
func (s *Service) Import(ctx context.Context, metadata, rootfs io.Reader, part Part, req ImportRequest) (*api.Image, error) {
	u, err := s.NewUpload()
	if err != nil {
		return nil, err
	}
	defer u.Discard()
	if rootfs == nil {
		err = u.Receive(ctx, Unified, req.Filename, metadata)
	} else if err = u.Receive(ctx, Metadata, "", metadata); err == nil {
		err = u.Receive(ctx, part, req.Filename, rootfs)
	}
	if err != nil {
		return nil, err
	}
	return s.Finish(ctx, u, req)
}

// List returns the images of a project, sorted by fingerprint.
func (s *Service) List(project api.ProjectName) []api.Image {
	out := []api.Image{}
	aliases := s.aliasesByTarget(project)
	for _, it := range s.images.List(state.Key(project.String()) + "/") {
		out = append(out, withAliases(it.Value.Image, aliases))
	}
	return out
}

// Get returns the image whose fingerprint begins with prefix; "Image not found", or errs.InvalidInput when
// there are several.
func (s *Service) Get(project api.ProjectName, prefix string) (*api.Image, error) {
	it, err := s.find(project, prefix)
	if err != nil {
		return nil, err
	}
	img := s.render(project, it.Value)
	return &img, nil
}

func (s *Service) find(project api.ProjectName, prefix string) (state.Item[record], error) {
	var none state.Item[record]
	if _, err := api.ParseFingerprintPrefix(prefix); err != nil {
		return none, errs.NotFound("Image not found") // so that nothing can be learned from the difference
	}
	found := s.images.List(imageKey(project, prefix))
	switch len(found) {
	case 0:
		return none, errs.NotFound("Image not found")
	case 1:
		return found[0], nil
	}
	return none, errs.Invalid("More than one image matches the fingerprint %q", prefix)
}

// Resolve turns an alias, a fingerprint or a unique prefix of one into the image. A whole fingerprint
// wins over an alias, an alias over a prefix.
func (s *Service) Resolve(_ context.Context, project api.ProjectName, ref string) (*api.Image, error) {
	if fp, err := api.ParseFingerprint(ref); err == nil {
		return s.Get(project, fp.String())
	}
	if name, err := api.ParseAliasName(ref); err == nil {
		if it, err := s.aliases.Get(aliasKey(project, name)); err == nil {
			return s.Get(project, it.Value.Target)
		}
	}
	if _, err := api.ParseFingerprintPrefix(ref); err == nil {
		return s.Get(project, ref)
	}
	return nil, errs.NotFound("Image alias not found")
}

// Update is [Service.Modify] for who has decided already.
func (s *Service) Update(ctx context.Context, project api.ProjectName, prefix string, put api.ImagePut) error {
	return s.Modify(ctx, project, prefix, func(api.ImagePut) (api.ImagePut, error) { return put, nil })
}

// Modify replaces the writable part of an image by what change makes of the current one; it is called again when somebody else was faster.
func (s *Service) Modify(ctx context.Context, project api.ProjectName, prefix string, change func(current api.ImagePut) (api.ImagePut, error)) error {
	it, err := s.find(project, prefix)
	if err != nil {
		return err
	}
	_, err = s.images.Modify(ctx, it.Key, func(r *record) error {
		old := r.Image.ImagePut
		put, err := change(old)
		if err == nil {
			err = unified.CheckProperties(put.Properties)
		}
		if err != nil {
			return err
		}
		r.Image.ImagePut = put
		if put.Properties == nil {
			r.Image.Properties = map[string]string{}
		}
		if put.Profiles == nil {
			r.Image.Profiles = old.Profiles
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("update image: %w", err)
	}
	return nil
}

// Delete removes an image from a project, with its aliases. Its content stays while instances or other projects
// need it.
func (s *Service) Delete(ctx context.Context, project api.ProjectName, prefix string) error {
	it, err := s.find(project, prefix)
	if err != nil {
		return err
	}
	fp, err := api.ParseFingerprint(it.Value.Image.Fingerprint)
	if err != nil {
		return err
	}
	ops := []state.Op{s.images.DeleteOp(it)}
	for _, a := range s.aliases.List(state.Key(project.String()) + "/") {
		if a.Value.Target == fp.String() {
			ops = append(ops, s.aliases.DeleteOp(a))
		}
	}
	if _, err := s.deps.State.Txn(ctx, ops...); err != nil {
		return fmt.Errorf("delete image: %w", err)
	}
	return s.collect(fp)
}

// UsedBy returns the owners that hold the image's content.
func (s *Service) UsedBy(fp api.Fingerprint) []string {
	var out []string
	for _, it := range s.holds.List(fp.String() + "/") {
		out = append(out, strings.Join(state.SplitKey(it.Key)[1:], "/"))
	}
	return out
}

func (s *Service) render(project api.ProjectName, r record) api.Image {
	return withAliases(r.Image, s.aliasesByTarget(project))
}

func withAliases(img api.Image, aliases map[string][]api.ImageAlias) api.Image {
	img.Aliases = slices.Clone(aliases[img.Fingerprint])
	if img.Aliases == nil {
		img.Aliases = []api.ImageAlias{}
	}
	return img
}
