package rest_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
	"github.com/shoal-project/shoal/test/backends"
	shoalworld "github.com/shoal-project/shoal/world"
)

// withWorld is a server of the machine h1 whose World lies in memory, a client of it, and the World as the machine h2 has it.
func withWorld(t *testing.T, with ...func(*shoalworld.Options)) (*world, *client.Client, *shoalworld.World) {
	t.Helper()
	b := backends.Mem(t)
	open := func(name string) *shoalworld.World {
		o := shoalworld.Options{Machine: name, KV: backends.Client(t, b)}
		for _, f := range with {
			f(&o)
		}
		sw, err := shoalworld.New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return sw
	}
	w := notReady(t)
	svc := w.services()
	svc.World = open("h1")
	w.srv.SetReady(svc)
	c, err := client.Connect(t.Context(), client.Options{Socket: filepath.Join(w.dir, "unix.socket")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return w, c, open("h2")
}

// errEnough ends a watch.
var errEnough = errors.New("enough")

func TestWorldStringsOverHTTP(t *testing.T) {
	w, c, other := withWorld(t)
	ctx := t.Context()
	for _, key := range []string{"a", "a/b", "..", ".", "a/../b", "//", "é %2F?#", "*"} {
		for i, want := range []bool{true, false} {
			changed, err := c.SetWorldString(ctx, key, api.WorldStringPut{WorldData: api.WorldData{Value: "v " + key}})
			if changed != want || err != nil {
				t.Errorf("set %q, time %d: %v %v", key, i+1, changed, err)
			}
		}
		if v, err := other.StrGet(ctx, key); v != "v "+key || err != nil {
			t.Errorf("%q: %q %v", key, v, err)
		}
		s, err := c.WorldString(key).Get(ctx)
		if err != nil || s.Key != key || s.Value != "v "+key || s.Expires {
			t.Errorf("get %q: %+v %v", key, s, err)
		}
		if _, err := c.SetWorldStringMap(ctx, key, api.WorldStringPut{WorldData: api.WorldData{Value: "/w==", Encoding: "base64"}}); err != nil {
			t.Error(err)
		}
		m, err := c.WorldStringMap(key).Get(ctx)
		if err != nil || len(m.Entries) != 1 || m.Entries["h1"] != (api.WorldData{Value: "/w==", Encoding: "base64"}) {
			t.Errorf("map %q: %+v %v", key, m, err)
		}
	}
	if all, err := c.WorldStrings().Get(ctx); err != nil || len(all) != 8 {
		t.Errorf("list: %+v %v", all, err)
	}
	if all, err := c.WorldStringMaps().Get(ctx); err != nil || len(all) != 8 {
		t.Errorf("maps: %+v %v", all, err)
	}
	if changed, err := c.DeleteWorldString(ctx, "a/b"); !changed || err != nil {
		t.Error(changed, err)
	}
	if changed, err := c.DeleteWorldStringMap(ctx, "a/b"); !changed || err != nil {
		t.Error(changed, err)
	}
	if _, err := c.WorldString("a/b").Get(ctx); client.StatusOf(err) != 404 {
		t.Errorf("deleted: %v", err)
	}
	w.want(w.do("GET", "/1.0/world/strings/a?watch=maybe", nil), 400, `Invalid watch "maybe": allowed are true and false`)
	w.want(w.do("PUT", "/1.0/world/strings/a", `{"value":"x","encoding":"hex"}`), 400, `Invalid encoding "hex": allowed are "" and "base64"`)
	w.want(w.do("PUT", "/1.0/world/strings/a", `{"value":"x","encoding":"base64"}`), 400, "")
	w.want(w.do("PUT", "/1.0/world/strings/a", `{"value":"x","ttl":-1}`), 400, "")
	w.want(w.do("PUT", "/1.0/world/strings/a", api.WorldStringPut{WorldData: api.WorldData{Value: strings.Repeat("x", 1<<20)}}), 413, "")
	w.want(w.do("PUT", "/1.0/world/strings/"+strings.Repeat("x", 600), `{"value":"x"}`), 400, "")
}

// A watch shows what is there, then each change; one for a string that does not exist waits for it; the daemon's stop ends it with a reason.
func TestWorldWatchOverHTTP(t *testing.T) {
	w, c, other := withWorld(t)
	var got []string
	err := c.WorldString("a").Follow(t.Context(), func(s *api.WorldString) error {
		var err error
		switch {
		case s == nil:
			got = append(got, "none")
			_, err = other.StrSet(t.Context(), "a", "1")
		case s.Value == "1":
			got = append(got, "1")
			_, err = other.StrSet(t.Context(), "b", "x") // not watched
			if err == nil {
				_, err = other.StrSet(t.Context(), "a", "2")
			}
		default:
			got = append(got, s.Value)
			err = errEnough
		}
		return err
	})
	if !errors.Is(err, errEnough) || strings.Join(got, " ") != "none 1 2" {
		t.Errorf("%q, %v", got, err)
	}
	err = c.WorldStringMap("m").Follow(t.Context(), func(m api.WorldStringMap) error {
		if len(m.Entries) == 0 {
			_, err := other.StrMapSet(t.Context(), "m", "x")
			return err
		}
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	ended := make(chan error, 1)
	err = c.WorldStrings().Follow(t.Context(), func(all []api.WorldString) error {
		w.srv.CloseStreams()
		return nil
	})
	ended <- err
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "watch /1.0/world/strings") {
		t.Errorf("the end of the daemon: %v", err)
	}
}

type members struct{ list []shoalworld.Member }

func (m members) Members(context.Context) ([]shoalworld.Member, error) { return m.list, nil }

func TestWorldMembersOverHTTP(t *testing.T) {
	_, c, _ := withWorld(t, func(o *shoalworld.Options) {
		o.Members = members{[]shoalworld.Member{{ID: 0xab, Name: "h1", Leader: true, ClientURLs: []string{"https://10.0.0.1:8443"}}}}
	})
	ms, err := c.WorldMembers().Get(t.Context())
	if err != nil || len(ms) != 1 || ms[0].ID != "ab" || !ms[0].Leader || ms[0].PeerURLs == nil {
		t.Errorf("%+v %v", ms, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = c.FollowWorldMembers(ctx, func(e api.WorldMemberEvent) error {
		if e.Change != "" || len(e.Members) != 1 || e.Time.IsZero() {
			t.Errorf("%+v", e)
		}
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	_, c, _ = withWorld(t)
	if _, err := c.WorldMembers().Get(t.Context()); client.StatusOf(err) != 501 {
		t.Errorf("unknown members: %v", err)
	}
}

func TestNoWorld(t *testing.T) {
	w := start(t)
	w.want(w.do("GET", "/1.0/world", nil), 501, "not implemented")
}

func TestWorldExportsOverHTTP(t *testing.T) {
	w, c, other := withWorld(t)
	ctx := t.Context()
	set := func(want bool, post api.WorldExportsPost) {
		t.Helper()
		if changed, err := c.SetWorldExports(ctx, post); changed != want || err != nil {
			t.Errorf("changed %v: %v", changed, err)
		}
	}
	e := func(name, to, value string) api.WorldExport {
		return api.WorldExport{Kind: "k/1", Name: name, To: to, WorldData: api.WorldData{Value: value}}
	}
	set(true, api.WorldExportsPost{Exports: []api.WorldExport{e("a", "", "1"), e("b", "h2", "2")}})
	set(false, api.WorldExportsPost{Exports: []api.WorldExport{e("a", "*", "1")}})
	set(true, api.WorldExportsPost{Replace: true, Set: "s", Exports: []api.WorldExport{e("c", "h1", "3"), {Kind: "bin", Name: "x", WorldData: api.WorldData{Value: "/w==", Encoding: "base64"}}}})
	names := func(o client.WorldExportsOptions) string {
		t.Helper()
		all, err := c.WorldExports(o).Get(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out := []string{}
		for _, e := range all {
			out = append(out, e.Name+">"+e.To+"="+e.Value)
		}
		return strings.Join(out, " ")
	}
	for _, tt := range []struct {
		o    client.WorldExportsOptions
		want string
	}{
		{client.WorldExportsOptions{}, "x>*=/w== a>*=1 c>h1=3"},
		{client.WorldExportsOptions{All: true}, "x>*=/w== a>*=1 b>h2=2 c>h1=3"},
		{client.WorldExportsOptions{Kinds: []string{"bin", "nope"}}, "x>*=/w=="},
		{client.WorldExportsOptions{Kinds: []string{"bin", "k/1"}, Name: "c"}, "c>h1=3"},
		{client.WorldExportsOptions{From: "h2"}, ""},
		{client.WorldExportsOptions{To: "h2", All: true}, "b>h2=2"},
	} {
		if got := names(tt.o); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.o, got, tt.want)
		}
	}
	if rs, err := other.ResCollect(ctx, []shoalworld.Filter{{Kind: "bin"}}); err != nil || len(rs) != 1 || rs[0].Data != "\xff" {
		t.Errorf("%+v %v", rs, err)
	}
	if changed, err := c.DeleteWorldExport(ctx, "k/1", "b", "h2"); !changed || err != nil {
		t.Error(changed, err)
	}
	set(true, api.WorldExportsPost{Replace: true, Set: "s"})
	if got := names(client.WorldExportsOptions{All: true}); got != "a>*=1" {
		t.Errorf("%q", got)
	}
	seen := 0
	err := c.WorldExports(client.WorldExportsOptions{Kinds: []string{"k/1"}}).Follow(ctx, func(all []api.WorldExport) error {
		if seen++; seen > 1 {
			return errEnough
		}
		_, err := other.ResExport(ctx, []shoalworld.Export{{Kind: "k/1", Name: "new"}})
		return err
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	w.want(w.do("POST", "/1.0/world/exports", `{"set":"x","exports":[]}`), 400, "a set is for replacing: say replace too, or no set")
	w.want(w.do("POST", "/1.0/world/exports", `{"exports":[{"kind":"k"}]}`), 400, "name of an export is empty")
	w.want(w.do("GET", "/1.0/world/exports?to=h9", nil), 400, `collect what is exported to "h9": allowed are "h1", "*" and nothing for both`)
	w.want(w.do("GET", "/1.0/world/exports?"+strings.Repeat("kind=a&", 101), nil), 400, "")
}

func TestWorldDeploysOverHTTP(t *testing.T) {
	w, c, other := withWorld(t)
	ctx := t.Context()
	w.want(w.do("GET", "/1.0/world/deploys/latest", nil), 404, "there is no deploy yet")
	add := func(post api.WorldDeploysPost) *api.WorldDeploy {
		t.Helper()
		d, err := c.AddWorldDeploy(ctx, post)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	one := add(api.WorldDeploysPost{WorldData: api.WorldData{Value: "/w==", Encoding: "base64"}, Hash: "a", Note: "n"})
	two := add(api.WorldDeploysPost{WorldData: api.WorldData{Value: "two"}, ID: 2, PrevHash: "a"})
	if one.ID != 1 || two.ID != 2 || two.Parent != one.Digest || one.Machine != "h1" || one.Size != 1 || one.Note != "n" {
		t.Errorf("%+v, %+v", one, two)
	}
	if _, err := c.AddWorldDeploy(ctx, api.WorldDeploysPost{ID: 2}); client.StatusOf(err) != 409 || !strings.Contains(err.Error(), "the newest deploy is 2") {
		t.Errorf("taken: %v", err)
	}
	if b, err := c.WorldDeployPayload(ctx, "1"); string(b) != "\xff" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if d := add(api.WorldDeploysPost{RollbackOf: 1}); d.ID != 3 || d.RollbackOf != 1 || d.Hash != "a" {
		t.Errorf("%+v", d)
	}
	if b, err := c.WorldDeployPayload(ctx, "latest"); string(b) != "\xff" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if changed, err := c.SetWorldDeployStatus(ctx, "3", "failed", "why"); !changed || err != nil {
		t.Error(changed, err)
	}
	seen := 0
	err := c.WorldDeployStatus("3").Follow(ctx, func(all []api.WorldDeployStatus) error {
		if seen++; seen > 1 {
			if len(all) != 2 || all[1].Machine != "h2" || all[1].State != "running" {
				t.Errorf("%+v", all)
			}
			return errEnough
		}
		if len(all) != 1 || all[0].Reason != "why" {
			t.Errorf("%+v", all)
		}
		_, err := other.SetDeployStatus(ctx, 3, shoalworld.DeployRunning, "")
		return err
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	if n, err := c.PruneWorldDeploys(ctx, 1); n != 2 || err != nil {
		t.Error(n, err)
	}
	if all, err := c.WorldDeploys().Get(ctx); err != nil || len(all) != 1 || all[0].ID != 3 {
		t.Errorf("%+v %v", all, err)
	}
	if wd, err := c.World(ctx); err != nil || wd.Deploy != 3 || wd.Machine != "h1" {
		t.Errorf("%+v %v", wd, err)
	}
	w.want(w.do("GET", "/1.0/world/deploys/1", nil), 404, "deploy 1 was pruned; the oldest left is 3")
	w.want(w.do("GET", "/1.0/world/deploys/x", nil), 400, `Invalid deploy "x": must be a number from 1 on, or latest`)
	w.want(w.do("DELETE", "/1.0/world/deploys", nil), 400, "")
	w.want(w.do("POST", "/1.0/world/deploys", `{"rollback_of":3,"value":"x"}`), 400, "")
	w.want(w.do("POST", "/1.0/world/deploys", `{"value":"x","author":{"key":"k","sig":"?"}}`), 400, "")
}

func TestWorldMachinesOverHTTP(t *testing.T) {
	_, c, other := withWorld(t)
	ctx := t.Context()
	if _, err := other.Announce(ctx); err != nil {
		t.Fatal(err)
	}
	ms, err := c.WorldMachines().Get(ctx)
	if err != nil || len(ms) != 1 || ms[0].Name != "h2" || !ms[0].Up || ms[0].Grace != 24*3600 {
		t.Errorf("%+v %v", ms, err)
	}
	if err := c.ForgetWorldMachine(ctx, "h2"); client.StatusOf(err) != 409 {
		t.Errorf("forget a machine that is up: %v", err)
	}
	here, err := other.Announce(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := here.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.ForgetWorldMachine(ctx, "h2"); err != nil {
		t.Error(err)
	}
	if ms, err := c.WorldMachines().Get(ctx); err != nil || len(ms) != 0 {
		t.Errorf("%+v %v", ms, err)
	}
}
