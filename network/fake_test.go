package network_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/network"
	"github.com/shoal-project/shoal/network/bridge"
	"github.com/shoal-project/shoal/network/firewall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeHost stands for links, packet filter and servers where a test is about records: it remembers, and fails where told to.
type fakeHost struct {
	mu      sync.Mutex
	bridges map[string]bridge.Config
	ports   map[string]bridge.Port
	rules   firewall.Rules
	sources map[string]network.Source
	taken   []netip.Prefix
	fail    map[string]error // name of a call → what it returns
	n       int
}

func newFakeHost() *fakeHost {
	return &fakeHost{bridges: map[string]bridge.Config{}, ports: map[string]bridge.Port{}, sources: map[string]network.Source{}, fail: map[string]error{}}
}

func (f *fakeHost) call(name string) (func(), error) {
	f.mu.Lock()
	return f.mu.Unlock, f.fail[name]
}

func (f *fakeHost) Ensure(_ context.Context, c bridge.Config) error {
	done, err := f.call("Ensure")
	defer done()
	f.bridges[c.Name] = c // half-made, where it fails
	return err
}

func (f *fakeHost) Remove(_ context.Context, name string) error {
	done, err := f.call("Remove")
	defer done()
	if err == nil {
		delete(f.bridges, name)
	}
	return err
}

func (f *fakeHost) Bridges() (out []string, err error) {
	done, err := f.call("Bridges")
	defer done()
	for b := range f.bridges {
		out = append(out, b)
	}
	return out, err
}

func (f *fakeHost) Taken() ([]netip.Prefix, error) { return f.taken, nil }

func (f *fakeHost) IPv6() bool { return f.fail["IPv6"] == nil }

func (f *fakeHost) Forward(v4, v6 bool) error {
	done, err := f.call("Forward")
	defer done()
	return err
}

func (f *fakeHost) Plug(_ context.Context, p bridge.Port) (string, error) {
	done, err := f.call("Plug")
	defer done()
	if err != nil {
		return "", err
	}
	f.n++
	host := fmt.Sprintf("veth%d", f.n)
	f.ports[host] = p
	return host, nil
}

func (f *fakeHost) Plugged(host string, p bridge.Port) bool {
	done, _ := f.call("Plugged")
	defer done()
	return f.ports[host].PID == p.PID && f.ports[host].Owner == p.Owner
}

func (f *fakeHost) Unplug(_ context.Context, host string) error {
	done, err := f.call("Unplug")
	defer done()
	delete(f.ports, host)
	return err
}

func (f *fakeHost) Condemn(host string) func() error {
	return func() error { return f.Unplug(context.Background(), host) }
}

func (f *fakeHost) Ports() (map[string]string, error) {
	done, err := f.call("Ports")
	defer done()
	out := map[string]string{}
	for h, p := range f.ports {
		out[h] = p.Owner
	}
	return out, err
}

func (f *fakeHost) Shape(host string, r bridge.Rates) error {
	done, err := f.call("Shape")
	defer done()
	return err
}

func (f *fakeHost) SweepShapers() error { return nil }

func (f *fakeHost) Interfaces() ([]bridge.Interface, error) {
	return []bridge.Interface{{Name: "eth7", Type: "physical"}}, nil
}

func (f *fakeHost) State(name string) (api.NetworkState, bool, error) {
	return api.NetworkState{}, name == "eth7", nil
}

func (f *fakeHost) Replace(_ context.Context, r firewall.Rules) error {
	done, err := f.call("Replace")
	defer done()
	f.rules = r
	return err
}

func (f *fakeHost) Obstacles(context.Context) ([]string, error) { return nil, nil }

func (f *fakeHost) Serve(name string, _ network.Spec, src network.Source) (io.Closer, error) {
	done, err := f.call("Serve")
	defer done()
	if err != nil {
		return nil, err
	}
	f.sources[name] = src
	return io.NopCloser(nil), nil
}

// records returns a service without a host, and the host that it believes in.
func records(t testing.TB, db *state.DB, f *fakeHost, clk clock.Clock) *network.Service {
	t.Helper()
	s, err := network.New(network.Deps{ID: "test", State: db, Clock: clk, Logger: slog.New(slog.DiscardHandler), Links: f, Firewall: f, Servers: f})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

var errHost = errs.Unavailable("the host does not want to")
