package rest_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/storage"
	"github.com/shoal-project/shoal/storage/dir"
	"github.com/shoal-project/shoal/storage/driver"
)

// nets is a network service with one bridge: the real one needs a network namespace.
type nets struct{ put api.NetworkPut }

func (n *nets) net() api.Network {
	return api.Network{NetworkPut: n.put, Name: "br0", Type: "bridge", Managed: true, UsedBy: []string{}, Locations: []string{"none"}}
}
func (n *nets) List(context.Context, api.ProjectName) ([]api.Network, error) {
	return []api.Network{n.net()}, nil
}
func (n *nets) Get(_ context.Context, _ api.ProjectName, name string) (api.Network, error) {
	if name != "br0" {
		return api.Network{}, errs.NotFound("Network not found")
	}
	return n.net(), nil
}
func (n *nets) Create(context.Context, api.ProjectName, api.NetworksPost) error {
	return errs.Exists("The network already exists")
}
func (n *nets) Modify(_ context.Context, _ api.ProjectName, _ api.NetworkName, change func(api.NetworkPut) (api.NetworkPut, error)) error {
	put, err := change(n.put)
	if err == nil {
		n.put = put
	}
	return err
}
func (n *nets) Delete(context.Context, api.ProjectName, api.NetworkName) error {
	return errs.Invalid("The network is currently in use")
}
func (n *nets) State(context.Context, api.ProjectName, string) (api.NetworkState, error) {
	return api.NetworkState{State: "up"}, nil
}
func (n *nets) Leases(context.Context, api.ProjectName, api.NetworkName) ([]api.NetworkLease, error) {
	return []api.NetworkLease{{Hostname: "c1", Address: "10.0.0.2", Type: "dynamic", Location: "none"}}, nil
}

func TestNetworksOverHTTP(t *testing.T) {
	w := notReady(t)
	svc := w.services()
	svc.Networks = &nets{put: api.NetworkPut{Config: api.Config{"ipv4.nat": "true"}}}
	w.srv.SetReady(svc)
	w.want(w.do("GET", "/1.0/networks/abc", nil), 404, "Network not found")
	w.want(w.do("POST", "/1.0/networks", `{"name":"br0"}`), 409, "The network already exists")
	w.want(w.do("DELETE", "/1.0/networks/br0", nil), 400, "The network is currently in use")
	tag := w.do("GET", "/1.0/networks/br0", nil).header.Get("ETag")
	w.want(w.do("PATCH", "/1.0/networks/br0", `{"config":{"user.a":"1"}}`, "If-Match", tag), 200, "")
	w.want(w.do("PUT", "/1.0/networks/br0", `{}`, "If-Match", tag), 412, "")
	var list []api.Network
	w.do("GET", "/1.0/networks?recursion=1", nil).into(t, &list)
	if len(list) != 1 || list[0].Config["ipv4.nat"] != "true" || list[0].Config["user.a"] != "1" {
		t.Errorf("got %+v", list)
	}
	var st api.NetworkState
	w.do("GET", "/1.0/networks/br0/state", nil).into(t, &st)
	var leases []api.NetworkLease
	w.do("GET", "/1.0/networks/br0/leases", nil).into(t, &leases)
	if st.State != "up" || len(leases) != 1 || leases[0].Location != "none" {
		t.Errorf("got %+v %+v", st, leases)
	}
}

func TestStorageOverHTTP(t *testing.T) {
	w := notReady(t)
	svc := w.services()
	log := slog.New(slog.DiscardHandler)
	st, err := storage.New(storage.Deps{Dir: t.TempDir(), State: state.NewMemory(), Drivers: []driver.Driver{dir.New(log)}, Clock: clock.Real{}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	svc.Storage = st
	svc.Resources = func() (any, error) { return api.Resources{Memory: api.ResourcesMemory{Total: 7}}, nil }
	w.srv.SetReady(svc)
	w.want(w.do("GET", "/1.0/storage-pools/abc", nil), 404, "Storage pool not found")
	w.want(w.do("POST", "/1.0/storage-pools", `{"name":"p","driver":"nope"}`), 400, "")
	a := w.do("POST", "/1.0/storage-pools", `{"name":"p","driver":"dir","description":"d"}`)
	if a.code != 201 || a.header.Get("Location") != "/1.0/storage-pools/p" {
		t.Fatalf("got %d %s", a.code, a.raw)
	}
	if a := w.do("POST", "/1.0/storage-pools", `{"name":"p","driver":"dir"}`); a.code != 409 || !strings.HasPrefix(a.Error, "The storage pool already exists") {
		t.Errorf("got %d %s", a.code, a.raw)
	}
	w.want(w.do("PATCH", "/1.0/storage-pools/p", `{"config":{"user.a":"1"}}`), 200, "")
	var pools []api.StoragePool
	w.do("GET", "/1.0/storage-pools?recursion=1", nil).into(t, &pools)
	if len(pools) != 1 || pools[0].Description != "d" || pools[0].Config["user.a"] != "1" || pools[0].Status != "Created" {
		t.Errorf("got %+v", pools)
	}
	var res api.ResourcesStoragePool
	w.do("GET", "/1.0/storage-pools/p/resources", nil).into(t, &res)
	if res.Space.Total == 0 {
		t.Errorf("got %+v", res)
	}
	var volumes []api.StorageVolume
	w.do("GET", "/1.0/storage-pools/p/volumes?filter=&recursion=1", nil).into(t, &volumes)
	if len(volumes) != 0 {
		t.Errorf("got %+v", volumes)
	}
	w.want(w.do("GET", "/1.0/storage-pools/p/volumes/custom/vv", nil), 404, "")
	w.want(w.do("DELETE", "/1.0/storage-pools/p", nil), 200, "")
	var r api.Resources
	w.do("GET", "/1.0/resources", nil).into(t, &r)
	if r.Memory.Total != 7 {
		t.Errorf("got %+v", r)
	}
}
