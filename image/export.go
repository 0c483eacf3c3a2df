package image

import (
	"context"
	"fmt"
	"os"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/image/unified"
	"github.com/shoal-project/shoal/internal/errs"
)

// ExportFile is one file of an image as it was uploaded.
type ExportFile struct {
	Part     Part   // the name of the part of the multipart form; Unified: the only file
	Filename string // what the client may call it
	Size     int64
	*os.File // open for reading, stays readable when the image is deleted meanwhile; close it
}

// Export opens the files that an image was uploaded as: one unified archive, or metadata and rootfs. Close them all.
func (s *Service) Export(_ context.Context, project api.ProjectName, prefix string) ([]ExportFile, error) {
	it, err := s.find(project, prefix)
	if err != nil {
		return nil, err
	}
	fp, err := api.ParseFingerprint(it.Value.Image.Fingerprint)
	if err != nil {
		return nil, err
	}
	defer s.lock(fp)()
	m, err := s.content(fp)
	if errs.IsNotFound(err) {
		return nil, errs.Unavailable("the content of image %s is not on this server", fp.Short())
	}
	if err != nil {
		return nil, err
	}
	var out []ExportFile
	for _, p := range m.Parts {
		f, err := s.root.Open(fp.String() + "/" + p.File)
		if err != nil {
			for _, e := range out {
				e.Close()
			}
			return nil, fmt.Errorf("export image %s: %w", fp.Short(), err)
		}
		name := fp.String() + unified.Extension(p.Kind, p.Packed)
		if p.Part == Metadata {
			name = "meta-" + name
		}
		out = append(out, ExportFile{Part: p.Part, Filename: name, Size: p.Size, File: f})
	}
	return out, nil
}
