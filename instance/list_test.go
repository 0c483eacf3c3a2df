package instance_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance"
	"github.com/shoal-project/shoal/test/instancetest"
)

// guests counts looks into network namespaces.
type guests struct{ looks atomic.Int64 }

func (g *guests) GuestState(_ context.Context, pid int) (map[string]api.InstanceStateNetwork, error) {
	g.looks.Add(1)
	return map[string]api.InstanceStateNetwork{"eth0": {Addresses: []api.InstanceStateNetworkAddress{{Family: "inet", Address: fmt.Sprintf("10.0.0.%d", pid%250)}}}}, nil
}

// A list takes addresses that were seen a moment ago; who asks for one instance gets those of now.
func TestAddressesInLists(t *testing.T) {
	g := &guests{}
	w := instancetest.New(t, func(d *instance.Deps) { d.Guests = g })
	create(t, w, "c1")
	must(t, do(t, w, "c1", "start"))
	list := func() api.InstanceState {
		t.Helper()
		full := w.ListFull(t.Context(), project)
		if len(full) != 1 || full[0].State == nil || len(full[0].State.Network["eth0"].Addresses) != 1 || full[0].State.Network["eth0"].HostName == "" {
			t.Fatalf("list %+v", full)
		}
		return *full[0].State
	}
	before := list()
	for range 20 {
		list()
	}
	if n := g.looks.Load(); n > 10 { // 21 lists take less than ten seconds
		t.Errorf("%d looks for 21 lists", n)
	}
	n := g.looks.Load()
	for range 3 {
		_, err := w.State(t.Context(), project, "c1")
		must(t, err)
	}
	if got := g.looks.Load() - n; got != 3 {
		t.Errorf("%d looks for 3 questions about one instance", got)
	}
	must(t, do(t, w, "c1", "restart"))
	if after := list(); after.Pid == before.Pid || after.Network["eth0"].Addresses[0].Address == before.Network["eth0"].Addresses[0].Address {
		t.Error("the list shows the addresses of the process before")
	}
	must(t, do(t, w, "c1", "stop"))
}

// BenchmarkListFull is a recursion=2 list of 1,000 stopped and 50 running instances.
func BenchmarkListFull(b *testing.B) {
	w := instancetest.New(b, func(d *instance.Deps) { d.Guests, d.Logger = &guests{}, slog.New(slog.DiscardHandler) })
	for i := range 1050 {
		spec, err := w.Create(b.Context(), project, api.InstancesPost{Name: fmt.Sprintf("c%d", i), Source: api.InstanceSource{Type: "image", Alias: "img"}})
		if err := w.Run(b, spec, err); err != nil {
			b.Fatal(err)
		}
		if i >= 50 {
			continue
		}
		spec, err = w.SetState(b.Context(), project, fmt.Sprintf("c%d", i), api.InstanceStatePut{Action: "start"})
		if err := w.Run(b, spec, err); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for b.Loop() {
		if n := len(w.ListFull(b.Context(), project)); n != 1050 {
			b.Fatalf("%d instances", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/list")
}
