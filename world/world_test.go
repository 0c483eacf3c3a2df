package world_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/mem"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/names"
	"github.com/shoal-project/shoal/world/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine returns the World as a machine has it, through a client of its own.
func machine(t testing.TB, b kvstore.Backend, name string, with ...func(*world.Options)) *world.World {
	t.Helper()
	o := world.Options{Machine: name, KV: backends.Client(t, b)}
	for _, f := range with {
		f(&o)
	}
	w, err := world.New(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// head is the revision of the store.
func head(t testing.TB, w *world.World) int64 {
	t.Helper()
	h, err := w.KV().Head(context.Background())
	must(t, err)
	return h.Revision
}

// next waits for an event; it is false when the watch has ended.
func next(t *testing.T, w *watch.Watch) bool {
	t.Helper()
	select {
	case _, ok := <-w.C():
		return ok
	case <-time.After(20 * time.Second):
		t.Fatal("no event")
		return false
	}
}

// until polls.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

func TestOptions(t *testing.T) {
	dial := func(context.Context, []string) (kvstore.Backend, error) { return mem.New(), nil }
	kv := backends.Client(t, backends.Mem(t))
	for name, tt := range map[string]struct {
		o    world.Options
		want string // part of the error, "" for none
	}{
		"client":            {world.Options{Machine: "h1", KV: kv, AdvertiseURLs: []string{"https://10.0.0.1:8443"}}, ""},
		"seeds":             {world.Options{Machine: "h1", Dial: dial, Seeds: []string{"http://127.0.0.1:2379", "10.0.0.1:2379", "unix:///run/etcd.sock", "https://[::1]:1"}}, ""},
		"no network":        {world.Options{Machine: "h1", Dial: dial, NoNetwork: true}, ""},
		"namespace":         {world.Options{Machine: "h1", KV: kv, Namespace: "/_mgmt"}, ""},
		"no name":           {world.Options{KV: kv}, "machine name"},
		"bad name":          {world.Options{Machine: "a/b", KV: kv}, "machine name"},
		"bad namespace":     {world.Options{Machine: "h1", KV: kv, Namespace: "/"}, "namespace"},
		"slash at the end":  {world.Options{Machine: "h1", KV: kv, Namespace: "/a/"}, "namespace"},
		"nothing":           {world.Options{Machine: "h1"}, "how to reach"},
		"no seeds":          {world.Options{Machine: "h1", Dial: dial}, "no seeds"},
		"both":              {world.Options{Machine: "h1", KV: kv, Dial: dial, Seeds: []string{"a:1"}}, "client and seeds"},
		"seeds, no network": {world.Options{Machine: "h1", Dial: dial, NoNetwork: true, Seeds: []string{"a:1"}}, "no network"},
		"URLs, no network":  {world.Options{Machine: "h1", KV: kv, NoNetwork: true, AdvertiseURLs: []string{"https://a:1"}}, "no network"},
		"no port":           {world.Options{Machine: "h1", Dial: dial, Seeds: []string{"http://a"}}, "https://host:port"},
		"scheme":            {world.Options{Machine: "h1", Dial: dial, Seeds: []string{"ftp://a:1"}}, "https://host:port"},
		"path":              {world.Options{Machine: "h1", Dial: dial, Seeds: []string{"http://a:1/x"}}, "https://host:port"},
		"twice":             {world.Options{Machine: "h1", Dial: dial, Seeds: []string{"a:1", "a:1"}}, "twice"},
		"bare URL":          {world.Options{Machine: "h1", KV: kv, AdvertiseURLs: []string{"a:1"}}, "advertised URL"},
		"grace":             {world.Options{Machine: "h1", KV: kv, Grace: time.Millisecond}, "grace"},
		"session":           {world.Options{Machine: "h1", KV: kv, SessionTTL: -1}, "session"},
	} {
		w, err := world.New(t.Context(), tt.o)
		switch {
		case tt.want == "":
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			must(t, w.Close())
		case !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	why := errors.New("nobody there")
	_, err := world.New(t.Context(), world.Options{Machine: "h1", NoNetwork: true, Dial: func(context.Context, []string) (kvstore.Backend, error) { return nil, why }})
	if !errors.Is(err, why) {
		t.Error(err)
	}
}

// Worlds of two namespaces see nothing of each other.
func TestNamespaces(t *testing.T) {
	b := backends.Mem(t)
	one := machine(t, b, "h1")
	two := machine(t, b, "h1", func(o *world.Options) { o.Namespace = "/_mgmt" })
	_, err := one.StrSet(t.Context(), "a", "1")
	must(t, err)
	if _, err := two.StrGet(t.Context(), "a"); !two.StrIsNotExist(err) {
		t.Error(err)
	}
	_, err = two.StrSet(t.Context(), "a", "2")
	must(t, err)
	if v, err := one.StrGet(t.Context(), "a"); v != "1" || err != nil {
		t.Error(v, err)
	}
	if kv, ok, err := two.KV().Get(t.Context(), "/_mgmt/strings/a"); !ok || err != nil || string(kv.Value) != "2" {
		t.Error(kv, ok, err)
	}
}

// hostile are names that once broke out of their place in a key, or could.
var hostile = []string{"a/b/c", "a", "a/", "/a", "//", "*", ",", "%", "%2F", "..", ".", "é…", " ", "a?b#c", strings.Repeat("x", names.MaxName)}
