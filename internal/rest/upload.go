package rest

import (
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/project"
	"github.com/shoal-project/shoal/image"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

// imagesPost takes an upload: the files are received while the client sends them, then an operation makes the image.
func imagesPost(r *request) response {
	p, err := r.effective(project.Images)
	if err != nil {
		return fail(err)
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = ""
	}
	if kind != "multipart/form-data" && kind != "application/octet-stream" {
		return imageFromSource(r)
	}
	req, err := importRequest(r, p)
	if err != nil {
		return fail(err)
	}
	up, err := r.svc.Images.NewUpload()
	if err != nil {
		takeRest(r)
		return fail(err)
	}
	if kind == "multipart/form-data" {
		err = receiveParts(r, up, multipart.NewReader(r.Body, params["boundary"]))
	} else {
		err = up.Receive(r.Context(), image.Unified, req.Filename, r.Body)
	}
	if err != nil {
		up.Discard()
		takeRest(r)
		return fail(err)
	}
	answer := r.start(importSpec(r, up, req), nil)
	if _, failed := answer.(*errorResponse); failed {
		up.Discard()
	}
	return answer
}

// takeRest lets a client send the rest of an upload that is refused. Clients read an answer only when they have sent everything:
// to one that is cut off, the reason would be a broken pipe. It ends with the connection, or after what a patient person waits.
func takeRest(r *request) {
	_ = http.NewResponseController(r.w).SetReadDeadline(time.Now().Add(time.Minute))
	_, _ = io.Copy(io.Discard, r.Body)
}

// imageFromSource is what a JSON body asks for: nothing that this build can do, but it says what.
func imageFromSource(r *request) response {
	var post api.ImagesPost
	if err := r.decode(&post); err != nil {
		return fail(err)
	}
	if post.Source == nil {
		return fail(errs.Invalid("Invalid request: source is missing"))
	}
	switch t := post.Source.Type; t {
	case "image", "url", "instance", "container", "virtual-machine", "snapshot":
		return fail(errs.Unsupported("images from a source of type %q are not supported yet; upload the image's files instead", t))
	default:
		return fail(errs.Invalid("Invalid image source type %q", t))
	}
}

func importRequest(r *request, p api.ProjectName) (image.ImportRequest, error) {
	req := image.ImportRequest{Project: p, Fingerprint: r.header("fingerprint"), Filename: r.header("filename")}
	if v := r.header("public"); v != "" {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return req, errs.Invalid("Invalid header X-LXD-public %q: true or false", v)
		}
		req.Public = b
	}
	values, err := url.ParseQuery(r.header("properties"))
	if err != nil {
		return req, errs.Invalid("Invalid header X-LXD-properties: %v", err)
	}
	for k := range values { // none: those of metadata.yaml
		if req.Properties == nil {
			req.Properties = map[string]string{}
		}
		req.Properties[k] = values.Get(k)
	}
	return req, nil
}

// receiveParts takes the parts of a form in the order in which they come.
func receiveParts(r *request, up *image.Upload, form *multipart.Reader) error {
	for n := 0; ; n++ {
		part, err := form.NextPart()
		if err == io.EOF && n > 0 {
			return nil
		}
		if err != nil {
			return errs.Invalid("Invalid multipart image: %v", err)
		}
		if err := up.Receive(r.Context(), image.Part(part.FormName()), part.FileName(), part); err != nil {
			return err
		}
	}
}

func importSpec(r *request, up *image.Upload, req image.ImportRequest) op.Spec {
	return op.Spec{
		Project: r.project, Description: "Downloading image",
		Run: func(ctx context.Context, o op.Handle) error {
			img, err := r.svc.Images.Finish(ctx, up, req)
			if err != nil {
				return err
			}
			o.SetMetadata(map[string]any{"fingerprint": img.Fingerprint, "size": strconv.FormatInt(img.Size, 10)})
			r.srv.d.Events.Lifecycle(ctx, r.project, "image-created", imageURL(img.Fingerprint, req.Project), map[string]any{"type": img.Type})
			return nil
		},
	}
}

func imageExport(r *request) response {
	p, img, err := imageOf(r)
	if err != nil {
		return fail(err)
	}
	files, err := r.svc.Images.Export(r.Context(), p, img.Fingerprint)
	if err != nil {
		return fail(err)
	}
	r.lifecycle("image-retrieved", imageURL(img.Fingerprint, p), nil)
	return stream(func(w http.ResponseWriter, _ *http.Request) {
		defer func() {
			for _, f := range files {
				_ = f.Close() // only read
			}
		}()
		if err := writeExport(w, files); err != nil {
			panic(http.ErrAbortHandler) // the header is out: only a broken connection says that this is not all
		}
	})
}

func writeExport(w http.ResponseWriter, files []image.ExportFile) error {
	if len(files) == 1 {
		f := files[0]
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", "inline;filename="+url.PathEscape(f.Filename))
		w.Header().Set("Content-Length", strconv.FormatInt(f.Size, 10))
		_, err := io.Copy(w, f)
		return err
	}
	mw := multipart.NewWriter(w)
	w.Header().Set("Content-Type", mw.FormDataContentType())
	for _, f := range files {
		h := textproto.MIMEHeader{}
		h.Set("Content-Disposition", mime.FormatMediaType("form-data", map[string]string{"name": string(f.Part), "filename": f.Filename}))
		h.Set("Content-Type", "application/octet-stream")
		pw, err := mw.CreatePart(h)
		if err != nil {
			return fmt.Errorf("write %s: %w", f.Part, err)
		}
		if _, err := io.Copy(pw, f); err != nil {
			return fmt.Errorf("write %s: %w", f.Part, err)
		}
	}
	return mw.Close()
}
