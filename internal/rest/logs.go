package rest

import (
	"io"
	"net/http"
	"net/url"
)

func logsGet(r *request) response {
	names, err := r.svc.Instances.Logs(r.project, r.PathValue("name"))
	if err != nil {
		return fail(err)
	}
	urls := make([]string, 0, len(names))
	for _, n := range names {
		urls = append(urls, withProject("/1.0/instances/"+r.PathValue("name")+"/logs/"+url.PathEscape(n), r.project))
	}
	return reply(urls)
}

func logGet(r *request) response {
	f, err := r.svc.Instances.Log(r.project, r.PathValue("name"), r.PathValue("file"))
	if err != nil {
		return fail(err)
	}
	return stream(func(w http.ResponseWriter, _ *http.Request) {
		defer func() { _ = f.Close() }()
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.Copy(w, f) // a log that ends early is still worth reading
	})
}

func logDelete(r *request) response {
	return done(r.svc.Instances.DeleteLog(r.project, r.PathValue("name"), r.PathValue("file")))
}
