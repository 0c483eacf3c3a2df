package network_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/network"
)

// manual is a clock that a test moves.
type manual struct{ now time.Time }

func (m *manual) Now() time.Time { return m.now }

func small(t *testing.T, name string) (*network.Service, *fakeHost) {
	t.Helper()
	f := newFakeHost()
	s := records(t, state.NewMemory(), f, clock.Real{})
	create(t, s, name, api.Config{"ipv4.address": "10.5.0.1/24", "ipv4.dhcp.ranges": "10.5.0.10-10.5.0.17", "ipv6.address": "fd42:5::1/64"})
	return s, f
}

func TestCreateLeavesNothingHalfMade(t *testing.T) {
	for _, step := range []string{"Ensure", "Forward", "Serve"} {
		t.Run(step, func(t *testing.T) {
			f := newFakeHost()
			s := records(t, state.NewMemory(), f, clock.Real{})
			f.fail[step] = errHost
			err := s.Create(t.Context(), api.DefaultProject, api.NetworksPost{Name: "br0"})
			if !errs.Is(err, errs.UnavailableClass) {
				t.Fatalf("error %v", err)
			}
			if list, _ := s.List(t.Context(), api.DefaultProject); len(list) != 1 || list[0].Managed || len(f.bridges) != 0 {
				t.Errorf("left: %+v, %v", list, f.bridges)
			}
			delete(f.fail, step)
			create(t, s, "br0", nil)
		})
	}
}

func TestUpdatePutsTheOldBack(t *testing.T) {
	s, f := small(t, "br0")
	name := nic(t, "br0", "c1", "", 1).Network
	before, _ := s.Get(t.Context(), api.DefaultProject, "br0")
	for _, step := range []string{"Ensure", "Serve"} {
		f.fail[step] = errHost
		err := s.Update(t.Context(), api.DefaultProject, name, api.NetworkPut{Config: api.Config{"ipv4.address": "10.6.0.1/24"}})
		if err == nil {
			t.Fatalf("%s: no error", step)
		}
		delete(f.fail, step)
		if after, _ := s.Get(t.Context(), api.DefaultProject, "br0"); after.Config["ipv4.address"] != before.Config["ipv4.address"] {
			t.Errorf("%s: %v", step, after.Config)
		}
		// The host may have refused the old one too: that is what Errored says, and the next start mends it.
		if err := s.Start(t.Context()); err != nil || s.Reason("br0") != nil {
			t.Errorf("%s: next start: %v, %v", step, err, s.Reason("br0"))
		}
	}
}

func TestStartFinishesAndUndoes(t *testing.T) {
	db, f := state.NewMemory(), newFakeHost()
	s := records(t, db, f, clock.Real{})
	create(t, s, "br0", nil)
	create(t, s, "br1", nil)
	c1, c2 := nic(t, "br0", "c1", "00:16:3e:00:00:01", 1), nic(t, "br0", "c2", "00:16:3e:00:00:02", 1)
	h1, h2 := attach(t, s, c1), attach(t, s, c2)
	// Killed after the record of br1 and the lease of c2 went, before the bridge and the link did; br0's bridge is lost.
	f.fail["Remove"], f.fail["Unplug"] = errHost, errHost
	if err := s.Delete(t.Context(), api.DefaultProject, nic(t, "br1", "c1", "", 1).Network); err == nil {
		t.Error("a bridge that stays is no error")
	}
	kept := f.ports[h2]
	delete(f.fail, "Unplug")
	if err := s.Forget(t.Context(), c2); err != nil {
		t.Fatal(err)
	}
	s.Close()
	delete(f.fail, "Remove")
	f.ports[h2] = kept
	delete(f.bridges, "br0")

	s = records(t, db, f, clock.Real{})
	s.Close() // waits for what runs in the background
	if _, ok := f.bridges["br0"]; !ok || len(f.bridges) != 1 {
		t.Errorf("bridges %v", f.bridges)
	}
	if _, ok := f.ports[h1]; !ok || len(f.ports) != 1 {
		t.Errorf("host ends %v, want only %s", f.ports, h1)
	}
}

func TestListShowsManagedAndHost(t *testing.T) {
	s, _ := small(t, "br0")
	list, err := s.List(t.Context(), api.DefaultProject)
	if err != nil || len(list) != 2 || list[0].Name != "br0" || !list[0].Managed || list[0].Status != "Created" || list[1].Name != "eth7" || list[1].Managed || list[1].Status != "" {
		t.Errorf("%+v, %v", list, err)
	}
	for _, tt := range []struct {
		name string
		post api.NetworksPost
		want errs.Class
	}{
		{"taken", api.NetworksPost{Name: "br0"}, errs.ExistsClass},
		{"type", api.NetworksPost{Name: "br1", Type: "ovn"}, errs.UnsupportedClass},
		{"name", api.NetworksPost{Name: "../../etc"}, errs.InvalidInput},
		{"name too long", api.NetworksPost{Name: "abcdefghijklmnop"}, errs.InvalidInput},
		{"unknown key", api.NetworksPost{Name: "br1", NetworkPut: api.NetworkPut{Config: api.Config{"ipv4.firewal": "x"}}}, errs.InvalidInput},
		{"overlap", api.NetworksPost{Name: "br1", NetworkPut: api.NetworkPut{Config: api.Config{"ipv4.address": "10.5.0.129/25"}}}, errs.InvalidInput},
		{"huge value", api.NetworksPost{Name: "br1", NetworkPut: api.NetworkPut{Config: api.Config{"user.x": strings.Repeat("x", 1<<20)}}}, errs.InvalidInput},
	} {
		if err := s.Create(t.Context(), api.DefaultProject, tt.post); errs.ClassOf(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestDeleteRefusesWhatIsUsed(t *testing.T) {
	s, f := small(t, "br0")
	c := nic(t, "br0", "c1", "00:16:3e:00:00:01", 1)
	if err := s.Reserve(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	err := s.Delete(t.Context(), api.DefaultProject, c.Network)
	if !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), "c1") {
		t.Errorf("deleted under an instance: %v", err)
	}
	if err := s.Forget(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), api.DefaultProject, c.Network); err != nil || len(f.bridges) != 0 || len(f.rules) != 0 {
		t.Errorf("%v, %v, %v", err, f.bridges, f.rules)
	}
	if err := s.NetworkExists(api.DefaultProject, c.Network); !errs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
	if err := s.Delete(t.Context(), api.DefaultProject, c.Network); !errs.IsNotFound(err) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestStaticAddresses(t *testing.T) {
	s, _ := small(t, "br0")
	static := func(instance, hw, ip string) network.NIC {
		n := nic(t, "br0", instance, hw, 1)
		n.IPv4 = mustAddr(t, ip)
		return n
	}
	if err := s.Reserve(t.Context(), static("c1", "00:16:3e:00:00:01", "10.5.0.99")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, ip string
		want     errs.Class
	}{
		{"taken", "10.5.0.99", errs.ExistsClass},
		{"router", "10.5.0.1", errs.InvalidInput},
		{"elsewhere", "10.6.0.9", errs.InvalidInput},
		{"broadcast", "10.5.0.255", errs.InvalidInput},
		{"family", "fd42:5::9", errs.InvalidInput},
	} {
		if err := s.Reserve(t.Context(), static("c2", "00:16:3e:00:00:02", tt.ip)); errs.ClassOf(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	// Changing one's mind frees the old address; a dynamic address stays out of the way of static ones.
	if err := s.Reserve(t.Context(), static("c1", "00:16:3e:00:00:01", "10.5.0.12")); err != nil {
		t.Fatal(err)
	}
	if err := s.Reserve(t.Context(), static("c2", "00:16:3e:00:00:02", "10.5.0.99")); err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		n := nic(t, "br0", fmt.Sprintf("d%d", i), fmt.Sprintf("00:16:3e:00:01:%02x", i), 1)
		if err := s.Reserve(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if l, ok := s.Lease(n); !ok || l.Address == "10.5.0.12" || l.Type != "dynamic" {
			t.Errorf("%+v", l)
		}
	}
	if err := s.Reserve(t.Context(), nic(t, "br0", "full", "00:16:3e:00:02:00", 1)); !errs.Is(err, errs.NoSpaceClass) {
		t.Errorf("full pool: %v", err)
	}
	// An update that would strand a static address says whose.
	err := s.Update(t.Context(), api.DefaultProject, nic(t, "br0", "c1", "", 1).Network, api.NetworkPut{Config: api.Config{"ipv4.address": "10.7.0.1/24"}})
	if !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), "c1") {
		t.Errorf("%v", err)
	}
}

// TestRenumber gives a network other addresses under an instance with a dynamic one: it gets a new one when it asks.
func TestRenumber(t *testing.T) {
	s, f := small(t, "br0")
	n := nic(t, "br0", "c1", "00:16:3e:00:00:01", 1)
	if err := s.Reserve(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), api.DefaultProject, n.Network, api.NetworkPut{Config: api.Config{"ipv4.address": "10.7.0.1/24"}}); err != nil {
		t.Fatal(err)
	}
	hw, _ := net.ParseMAC(n.HWAddr)
	a, name, err := f.sources["br0"].Offer(t.Context(), hw)
	if err != nil || name != "c1" || !netip.MustParsePrefix("10.7.0.0/24").Contains(a) {
		t.Errorf("%s %q %v", a, name, err)
	}
	if l, _ := s.Lease(n); l.Address != a.String() {
		t.Errorf("lease %+v, offered %s", l, a)
	}
}

func TestClaimsAtTheSameTime(t *testing.T) {
	s, _ := small(t, "br0")
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	full := 0
	for i := range 12 { // for eight addresses
		n := nic(t, "br0", fmt.Sprintf("c%d", i), fmt.Sprintf("00:16:3e:00:00:%02x", i), 1)
		wg.Go(func() {
			err := s.Reserve(context.Background(), n)
			l, ok := s.Lease(n)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errs.Is(err, errs.NoSpaceClass) && !ok:
				full++
			case err == nil:
				got[l.Address]++
			default:
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if full != 4 || len(got) != 8 {
		t.Errorf("%d refused, leases %v", full, got)
	}
}

// TestStrangersCannotExhaust floods a pool with made-up hardware addresses.
func TestStrangersCannotExhaust(t *testing.T) {
	clk := &manual{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	f := newFakeHost()
	s := records(t, state.NewMemory(), f, clk)
	create(t, s, "br0", api.Config{"ipv4.address": "10.5.0.1/24", "ipv4.dhcp.ranges": "10.5.0.10-10.5.0.29", "ipv6.address": "none"})
	src := f.sources["br0"]
	bind := func(i int) error {
		hw := net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}
		a, _, err := src.Offer(t.Context(), hw)
		if err != nil {
			return err
		}
		return src.Bind(t.Context(), hw, a)
	}
	ok := 0
	for i := range 500 {
		if bind(i) == nil {
			ok++
		}
	}
	if ok != 5 { // a quarter of 20
		t.Errorf("%d strangers have leases", ok)
	}
	for i := range 20 { // all addresses are for instances where they want them
		if err := s.Reserve(t.Context(), nic(t, "br0", fmt.Sprintf("c%d", i), fmt.Sprintf("00:16:3e:00:00:%02x", i), 1)); err != nil {
			t.Fatalf("instance %d: %v", i, err)
		}
	}
	checkLeases(t, s, "br0")
	for i := range 10 {
		if err := s.Forget(t.Context(), nic(t, "br0", fmt.Sprintf("c%d", i), "", 1)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		if err := bind(1000 + i); err != nil {
			t.Fatal(err)
		}
	}
	if err := bind(2000); !errs.Is(err, errs.NoSpaceClass) {
		t.Errorf("sixth stranger: %v", err)
	}
	clk.now = clk.now.Add(2 * time.Hour) // their time is over
	if err := bind(2000); err != nil {
		t.Errorf("after expiry: %v", err)
	}
	hw := net.HardwareAddr{2, 0, 0, 0, 2000 >> 8, 2000 & 0xff}
	if err := src.Release(t.Context(), hw); err != nil {
		t.Fatal(err)
	}
	checkLeases(t, s, "br0")
}

// checkLeases compares what leases say about each other: no address and no hardware address twice.
func checkLeases(t interface{ Fatalf(string, ...any) }, s *network.Service, name string) map[string]string {
	n, _ := api.ParseNetworkName(name)
	list, err := s.Leases(context.Background(), api.ProjectName{}, n)
	if err != nil {
		t.Fatalf("%v", err)
	}
	byAddr := map[string]string{}
	for _, l := range list {
		if byAddr[l.Address] != "" || l.Address == "" {
			t.Fatalf("address %q twice or empty: %+v", l.Address, list)
		}
		byAddr[l.Address] = l.Hwaddr + "/" + l.Hostname
	}
	return byAddr
}

// TestLeaseHistory lets instances and strangers do what they like in any order.
func TestLeaseHistory(t *testing.T) {
	spec := api.Config{"ipv4.address": "10.5.0.1/24", "ipv4.dhcp.ranges": "10.5.0.10-10.5.0.21", "ipv6.address": "none"}
	rapid.Check(t, func(rt *rapid.T) {
		clk := &manual{now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
		f := newFakeHost()
		s := records(t, state.NewMemory(), f, clk)
		create(t, s, "br0", spec)
		src := f.sources["br0"]
		have := map[string]string{} // instance → hardware address it was last given
		name := rapid.SampledFrom([]string{"c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"})
		hws := rapid.IntRange(0, 11)
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": func(rt *rapid.T) {
				n := nic(t, "br0", name.Draw(rt, "name"), fmt.Sprintf("02:00:00:00:00:%02x", hws.Draw(rt, "hw")), 1)
				if rapid.Bool().Draw(rt, "static") {
					n.IPv4 = ip4(5<<16 | uint32(rapid.IntRange(8, 23).Draw(rt, "addr")))
				}
				before, had := s.Lease(n)
				switch err := s.Reserve(context.Background(), n); {
				case err == nil:
					after, _ := s.Lease(n)
					if n.IPv4.IsValid() && after.Address != n.IPv4.String() || after.Hwaddr != n.HWAddr {
						rt.Fatalf("asked for %+v, got %+v", n, after)
					}
					if had && !n.IPv4.IsValid() && before.Type == "dynamic" && before.Address != after.Address {
						rt.Fatalf("lease moved from %s to %s", before.Address, after.Address)
					}
					have[n.Instance.String()] = n.HWAddr
				case errs.IsExists(err) || errs.Is(err, errs.NoSpaceClass):
					if after, has := s.Lease(n); has != had || after != before {
						rt.Fatalf("refused, but %+v became %+v", before, after)
					}
				default:
					rt.Fatalf("%v", err)
				}
			},
			"forget": func(rt *rapid.T) {
				n := nic(t, "br0", name.Draw(rt, "name"), "", 1)
				if err := s.Forget(context.Background(), n); err != nil {
					rt.Fatalf("%v", err)
				}
				delete(have, n.Instance.String())
			},
			"stranger": func(rt *rapid.T) {
				hw := net.HardwareAddr{2, 0, 0, 0, 0, byte(hws.Draw(rt, "hw"))}
				a, who, err := src.Offer(context.Background(), hw)
				if err != nil {
					return
				}
				if who != "" && have[who] != hw.String() {
					rt.Fatalf("%s is taken for %s, which has %s", hw, who, have[who])
				}
				if err := src.Bind(context.Background(), hw, a); err != nil {
					rt.Fatalf("bind what was offered: %v", err)
				}
			},
			"time": func(*rapid.T) { clk.now = clk.now.Add(31 * time.Minute) },
			"": func(rt *rapid.T) {
				byAddr := checkLeases(rt, s, "br0")
				for n, hw := range have {
					l, ok := s.Lease(nic(t, "br0", n, hw, 1))
					if !ok || byAddr[l.Address] != hw+"/"+n {
						rt.Fatalf("%s has %+v, the list says %q", n, l, byAddr[l.Address])
					}
					got, ok := src.Addrs(n)
					if a, _ := netip.ParseAddr(l.Address); !ok || !slices.Contains(got, a) || src.Name(a) != n {
						rt.Fatalf("names: %v, %q", got, src.Name(a))
					}
				}
			},
		})
	})
}
