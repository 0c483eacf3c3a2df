package etcd_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/internal/testring"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
	"github.com/shoal-project/shoal/kvstore/etcd/etcdtest"
	"github.com/shoal-project/shoal/kvstore/kvtest"
)

// What is left out are idle connections between the etcd members of a test that cut them off from each other; our side speaks gRPC.
func TestMain(m *testing.M) {
	etcdtest.Main()
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"))
}

func TestConformance(t *testing.T) {
	kvtest.Run(t, time.Second, func(t *testing.T) kvstore.Backend {
		m, err := elastic.Start(t.Context(), elastic.Config{Name: "m1", Dir: t.TempDir(), NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		b := etcd.New(m.Client())
		t.Cleanup(func() {
			b.Close()
			if err := m.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return b
	})
}

// TestConformanceWithFaults is slow: etcd's leases last a second at least.
func TestConformanceWithFaults(t *testing.T) {
	testring.Need(t, 2)
	kvtest.RunWithFaults(t, time.Second, func(t *testing.T) kvstore.Backend {
		m, err := elastic.Start(t.Context(), elastic.Config{Name: "m1", Dir: t.TempDir(), NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		b := etcd.New(m.Client())
		t.Cleanup(func() {
			b.Close()
			if err := m.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return b
	})
}

func TestUsers(t *testing.T) {
	m, err := elastic.Start(t.Context(), elastic.Config{Name: "m1", Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	b := etcd.New(m.Client())
	defer func() {
		b.Close()
		if err := m.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	for _, r := range []string{"reader", "writer"} {
		if _, err := m.Client().RoleAdd(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	roles := func() string {
		u, err := m.Client().UserGet(t.Context(), "n1")
		if err != nil {
			return err.Error()
		}
		return strings.Join(u.Roles, " ")
	}
	for _, want := range []string{"reader", "reader writer", "reader writer", "writer", ""} {
		if err := b.EnforceUser(t.Context(), "n1", strings.Fields(want)); err != nil || roles() != want {
			t.Errorf("roles %q, want %q: %v", roles(), want, err)
		}
	}
	if err := b.EnforceUser(t.Context(), "n1", []string{"none"}); !errors.Is(err, kvstore.ErrNotFound) {
		t.Errorf("a role that does not exist: %v", err)
	}
	for range 2 {
		if err := b.EnforceNoUser(t.Context(), "n1"); err != nil {
			t.Error(err)
		}
	}
	if got := roles(); !strings.Contains(got, "not found") {
		t.Errorf("after its removal: %s", got)
	}
}
