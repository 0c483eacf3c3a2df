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
