package rest_test

import (
	"testing"

	"github.com/shoal-project/shoal/api"
)

func TestSnapshotsOverHTTP(t *testing.T) {
	w := withInstances(t)
	w.succeed(w.do("POST", "/1.0/instances", create))
	const all = "/1.0/instances/c1/snapshots"
	o := w.succeed(w.do("POST", all, `{"name":"","stateful":false,"expires_at":null}`))
	if o.Description != "Snapshotting instance" || len(o.Resources["instances"]) != 1 {
		t.Errorf("operation %+v", o)
	}
	w.want(w.do("POST", all, `{"name":"snap0"}`), 409, `Snapshot "snap0" already exists`)
	w.want(w.do("POST", all, `{"name":"a/b"}`), 400, "")
	w.want(w.do("POST", all, `{"name":"x","expires_at":"2001-01-01T00:00:00Z"}`), 400, "expires_at 2001-01-01T00:00:00Z is in the past")
	w.want(w.do("GET", "/1.0/instances/zz/snapshots", nil), 404, "Instance not found")
	w.want(w.do("GET", all+"/zz", nil), 404, "Instance snapshot not found")
	var urls []string
	w.do("GET", all, nil).into(t, &urls)
	if len(urls) != 1 || urls[0] != all+"/snap0" {
		t.Errorf("urls %v", urls)
	}
	var list []api.InstanceSnapshot
	w.do("GET", all+"?recursion=1", nil).into(t, &list)
	if len(list) != 1 || list[0].Name != "snap0" || !list[0].ExpiresAt.IsZero() || list[0].Size != -1 || list[0].CreatedAt.IsZero() {
		t.Errorf("list %+v", list)
	}
	one := w.do("GET", all+"/snap0", nil)
	w.succeed(w.do("PUT", all+"/snap0", `{"expires_at":"2999-01-01T00:00:00Z"}`, "If-Match", one.header.Get("ETag")))
	w.want(w.do("PUT", all+"/snap0", `{"expires_at":"2999-01-01T00:00:00Z"}`, "If-Match", one.header.Get("ETag")), 412, "")
	w.succeed(w.do("POST", all+"/snap0", `{"name":"s1"}`))
	var full api.InstanceFull
	w.do("GET", "/1.0/instances/c1?recursion=1", nil).into(t, &full)
	if len(full.Snapshots) != 1 || full.Snapshots[0].Name != "s1" || full.Snapshots[0].ExpiresAt.Year() != 2999 {
		t.Errorf("got %+v", full.Snapshots)
	}
	w.succeed(w.do("PUT", "/1.0/instances/c1", `{"restore":"s1"}`))
	w.want(w.do("PUT", "/1.0/instances/c1", `{"restore":"s1","stateful":true}`), 400, "Stateful snapshot restore requested but snapshot is stateless")
	w.succeed(w.do("DELETE", all+"/s1", nil))
	w.want(w.do("DELETE", all+"/s1", nil), 404, "Instance snapshot not found")
}

func TestCopyOverHTTP(t *testing.T) {
	w := withInstances(t)
	w.succeed(w.do("POST", "/1.0/instances", create))
	w.succeed(w.do("POST", "/1.0/instances/c1/snapshots", `{"name":"s0"}`))
	w.succeed(w.do("POST", "/1.0/instances", `{"name":"c2","source":{"type":"copy","source":"c1","project":"default"}}`))
	w.succeed(w.do("POST", "/1.0/instances", `{"name":"c3","source":{"type":"copy","source":"c1/s0"}}`))
	w.want(w.do("POST", "/1.0/instances", `{"name":"c4","source":{"type":"copy","source":"c1","project":"none"}}`), 404, "Instance not found")
	w.want(w.do("POST", "/1.0/instances", `{"name":"c4","source":{"type":"copy","source":"zz"}}`), 404, "Instance not found")
	var full api.InstanceFull
	w.do("GET", "/1.0/instances/c2?recursion=1", nil).into(t, &full)
	if len(full.Snapshots) != 1 || full.Snapshots[0].Name != "s0" {
		t.Errorf("got %+v", full.Snapshots)
	}
}
