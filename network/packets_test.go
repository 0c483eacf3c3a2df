package network_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/testring"
)

// TestInstancesTalk is the life of two instances on a network, with real packets and a DHCP client that is not ours.
func TestInstancesTalk(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	db := state.NewMemory()
	s := start(t, db)
	create(t, s, "br0", api.Config{"ipv4.address": "10.70.1.1/24", "ipv6.address": "fd42:1:2:3::1/64"})

	web, db1 := guest(t), guest(t)
	attach(t, s, nic(t, "br0", "web", "00:16:3e:00:00:01", web))
	attach(t, s, nic(t, "br0", "db1", "00:16:3e:00:00:02", db1))
	a := lease(t, web, "-x", "hostname:evil")
	b := lease(t, db1)
	if a["ip"] == b["ip"] || a["router"] != "10.70.1.1" || a["dns"] != "10.70.1.1" || a["domain"] != "lxd" || a["hostname"] != "web" || a["lease"] != "3600" {
		t.Fatalf("web was told %v, db1 %v", a, b)
	}
	in(t, web, "busybox", "ping", "-c", "1", "-W", "3", b["ip"])

	for _, tt := range []struct {
		name  string
		qtype uint16
		want  []string
	}{
		{"web", dns.TypeA, []string{a["ip"]}},
		{"web.lxd", dns.TypeA, []string{a["ip"]}},
		{"WEB.LXD", dns.TypeA, []string{a["ip"]}},
		{"web.lxd", dns.TypeAAAA, []string{"fd42:1:2:3:216:3eff:fe00:1"}},
		{"evil.lxd", dns.TypeA, nil},
		{"web.lxd", dns.TypeMX, nil},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := answers(resolve(t, db1, network, "10.70.1.1", tt.name, tt.qtype)); !slices.Equal(got, tt.want) {
				t.Errorf("%s %s by %s: %v, want %v", tt.name, dns.TypeToString[tt.qtype], network, got, tt.want)
			}
		}
	}
	if got := answers(resolve(t, 0, "udp", "10.70.1.1", "db1.lxd", dns.TypeA)); !slices.Equal(got, []string{b["ip"]}) {
		t.Errorf("the host resolves db1.lxd to %v", got)
	}
	rev, _ := dns.ReverseAddr(a["ip"])
	if got := answers(resolve(t, db1, "udp", "10.70.1.1", rev, dns.TypePTR)); !slices.Equal(got, []string{"web.lxd."}) {
		t.Errorf("%s is called %v", a["ip"], got)
	}

	// Router advertisements: the kernel in the guest makes the address that DNS tells, and a default route.
	want := "fd42:1:2:3:216:3eff:fe00:1"
	eventually(t, "web autoconfigures "+want, func() bool {
		out := in(t, web, "ip", "-6", "addr", "show", "eth0", "-tentative")
		return strings.Contains(out, want)
	})
	eventually(t, "db1 has an address to ask from", func() bool {
		return strings.Contains(in(t, db1, "ip", "-6", "addr", "show", "eth0", "-tentative"), "fd42:1:2:3:")
	})
	eventually(t, "web has a default route for IPv6", func() bool { return strings.Contains(in(t, web, "ip", "-6", "route"), "default via fe80::") })
	if got := answers(resolve(t, db1, "udp", "fd42:1:2:3::1", "web", dns.TypeA)); !slices.Equal(got, []string{a["ip"]}) {
		t.Errorf("by IPv6: %v", got)
	}

	// The daemon restarts while instances run; then one of them stops and starts again.
	s.Close()
	s = start(t, db)
	host := attach(t, s, nic(t, "br0", "web", "00:16:3e:00:00:01", web))
	if again := attach(t, s, nic(t, "br0", "web", "00:16:3e:00:00:01", web)); again != host {
		t.Errorf("attached twice: %s, then %s", host, again)
	}
	in(t, web, "busybox", "ping", "-c", "1", "-W", "3", b["ip"])
	reborn := guest(t)
	attach(t, s, nic(t, "br0", "web", "00:16:3e:00:00:01", reborn))
	if c := lease(t, reborn); c["ip"] != a["ip"] {
		t.Errorf("after stop and start web has %s, before %s", c["ip"], a["ip"])
	}
	// Forgotten, the address and the name are gone.
	if err := s.Forget(t.Context(), nic(t, "br0", "web", "00:16:3e:00:00:01", reborn)); err != nil {
		t.Fatal(err)
	}
	if r := resolve(t, db1, "udp", "10.70.1.1", "web.lxd", dns.TypeA); r.Rcode != dns.RcodeNameError {
		t.Errorf("forgotten name: %s", dns.RcodeToString[r.Rcode])
	}
	eventually(t, "no host end but db1's is left", func() bool {
		out, _ := exec.Command("ip", "-o", "link", "show", "type", "veth").Output()
		return strings.Count(string(out), "\n") == 1
	})
}

// TestNATReachesBeyond puts a server behind a third namespace that has no route back.
func TestNATReachesBeyond(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	s := start(t, state.NewMemory())
	outside := guest(t)
	for _, c := range []string{
		fmt.Sprintf("ip link add up0 type veth peer name eth0 netns %d", outside), "ip addr add 192.0.2.1/24 dev up0", "ip link set up0 up",
	} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", c, out)
		}
	}
	in(t, outside, "ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
	in(t, outside, "ip", "link", "set", "eth0", "up")

	create(t, s, "nat0", api.Config{"ipv4.address": "10.70.2.1/24", "ipv4.nat": "true", "ipv6.address": "none"})
	create(t, s, "flat0", api.Config{"ipv4.address": "10.70.3.1/24", "ipv6.address": "none"})
	seen := make(chan string, 8)
	var ln net.Listener
	inside(t, outside, func() { ln, _ = net.Listen("tcp", "192.0.2.2:80") })
	if ln == nil {
		t.Fatal("no listener")
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			seen <- c.RemoteAddr().(*net.TCPAddr).IP.String()
			c.Close()
		}
	}()
	dial := func(pid int) (err error) {
		inside(t, pid, func() {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", "192.0.2.2:80", 2*time.Second); err == nil {
				c.Close()
			}
		})
		return err
	}
	natted, flat := guest(t), guest(t)
	attach(t, s, nic(t, "nat0", "n1", "00:16:3e:00:00:01", natted))
	attach(t, s, nic(t, "flat0", "f1", "00:16:3e:00:00:02", flat))
	lease(t, natted)
	lease(t, flat)
	if err := dial(natted); err != nil {
		t.Fatalf("through NAT: %v", err)
	}
	if from := <-seen; from != "192.0.2.1" {
		t.Errorf("the outside saw %s, want the host's address", from)
	}
	if err := dial(flat); err == nil {
		t.Error("without NAT the answer found its way back")
	}
	// Nobody outside may use our DNS, and the rules are those of the model.
	if r, err := tryResolve(t, outside, "udp", "10.70.2.1", "n1.lxd", dns.TypeA); err == nil {
		t.Errorf("an open resolver: %v", r)
	}
	in(t, outside, "ip", "route", "add", "10.70.2.0/24", "via", "192.0.2.1")
	for _, network := range []string{"udp", "tcp"} {
		if r, err := tryResolve(t, outside, network, "10.70.2.1", "n1.lxd", dns.TypeA); err == nil {
			t.Errorf("an open resolver by %s: %v", network, r)
		}
	}
}

// TestAttachFailsClean has names and places that are taken or missing.
func TestAttachFailsClean(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	s := start(t, state.NewMemory())
	create(t, s, "br0", api.Config{"ipv4.address": "10.70.1.1/24", "ipv6.address": "none"})
	pid := guest(t)
	first := nic(t, "br0", "c1", "00:16:3e:00:00:01", pid)
	attach(t, s, first)
	second := nic(t, "br0", "c2", "00:16:3e:00:00:02", pid)
	noNet := nic(t, "br9", "c2", "00:16:3e:00:00:02", pid)
	noPID := nic(t, "br0", "c2", "00:16:3e:00:00:02", 1<<22-1)
	sameHW := nic(t, "br0", "c2", "00:16:3e:00:00:01", pid)
	hostTaken := nic(t, "br0", "c2", "00:16:3e:00:00:02", pid)
	hostTaken.Name, hostTaken.HostName = "eth1", "lo0"
	if out, err := exec.Command("ip", "link", "add", "lo0", "type", "ifb").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	for _, tt := range []struct {
		name string
		give func() error
		want errs.Class
	}{
		{"name inside taken", func() error { _, err := s.Attach(t.Context(), second); return err }, errs.ExistsClass},
		{"no network", func() error { _, err := s.Attach(t.Context(), noNet); return err }, errs.NotFoundClass},
		{"no process", func() error { _, err := s.Attach(t.Context(), noPID); return err }, errs.NotFoundClass},
		{"hardware address taken", func() error { _, err := s.Attach(t.Context(), sameHW); return err }, errs.ExistsClass},
		{"host name taken", func() error { _, err := s.Attach(t.Context(), hostTaken); return err }, errs.ExistsClass},
	} {
		if err := tt.give(); errs.ClassOf(err) != tt.want {
			t.Errorf("%s: class %v (%v), want %v", tt.name, errs.ClassOf(err), err, tt.want)
		}
	}
	if out, _ := exec.Command("ip", "-o", "link", "show", "type", "veth").Output(); strings.Count(string(out), "\n") != 1 {
		t.Errorf("left behind:\n%s", out)
	}
	// The host end that a crash left without a label, and one of an instance that is no more, go at the next start.
	if err := s.Detach(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := s.Detach(t.Context(), first); err != nil {
		t.Errorf("detached twice: %v", err)
	}
}

// TestForeignBridgeIsRefused keeps its hands off what it did not make, and takes its own back.
func TestForeignBridgeIsRefused(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	if out, err := exec.Command("ip", "link", "add", "their0", "type", "bridge").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	db := state.NewMemory()
	s := start(t, db)
	err := s.Create(t.Context(), api.DefaultProject, api.NetworksPost{Name: "their0"})
	if !errs.IsExists(err) || !strings.Contains(err.Error(), "their0") {
		t.Errorf("took over a foreign bridge: %v", err)
	}
	if n, err := s.Get(t.Context(), api.DefaultProject, "their0"); err != nil || n.Managed || n.Type != "bridge" {
		t.Errorf("listed as %+v, %v", n, err)
	}
	// What a crash left half-made is taken back: a bridge before it got its label, a host end before it got its own.
	for _, c := range []string{"ip link add name half0 group 23054 type bridge", "ip link add name halfveth group 23054 type veth peer name peer"} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", c, out)
		}
	}
	create(t, s, "half0", api.Config{"ipv4.address": "10.70.6.1/24", "ipv6.address": "none"})
	// One broken network neither stops the service nor the others, and says why.
	create(t, s, "ours0", api.Config{"ipv4.address": "10.70.4.1/24", "ipv6.address": "none"})
	create(t, s, "good0", api.Config{"ipv4.address": "10.70.5.1/24", "ipv6.address": "none"})
	s.Close()
	for _, c := range []string{"ip link del ours0", "ip link add ours0 type bridge"} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", c, out)
		}
	}
	s = start(t, db)
	if n, _ := s.Get(t.Context(), api.DefaultProject, "ours0"); n.Status != "Errored" || s.Reason("ours0") == nil {
		t.Errorf("broken network: status %q, reason %v", n.Status, s.Reason("ours0"))
	}
	eventually(t, "the half-made host end is gone", func() bool { return exec.Command("ip", "link", "show", "halfveth").Run() != nil })
	pid := guest(t)
	attach(t, s, nic(t, "good0", "c1", "00:16:3e:00:00:01", pid))
	lease(t, pid)
	if _, err := s.Attach(t.Context(), nic(t, "ours0", "c1", "00:16:3e:00:00:02", pid)); !errs.Is(err, errs.UnavailableClass) {
		t.Errorf("attach to a broken network: %v", err)
	}
}

// TestHostIsAsRecorded compares what the kernel has with what was asked for, through update and deletion.
func TestHostIsAsRecorded(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	s := start(t, state.NewMemory())
	create(t, s, "br0", api.Config{"ipv4.address": "10.70.1.1/24", "ipv6.address": "fd42:1::1/64", "bridge.mtu": "1400", "bridge.hwaddr": "00:16:3e:aa:bb:cc"})
	st, err := s.State(t.Context(), api.DefaultProject, "br0")
	if err != nil {
		t.Fatal(err)
	}
	if st.Mtu != 1400 || st.Hwaddr != "00:16:3e:aa:bb:cc" || st.State != "up" || st.Type != "broadcast" || st.Bridge == nil || st.Bridge.ID != "8000.00163eaabbcc" {
		t.Errorf("state %+v, bridge %+v", st, st.Bridge)
	}
	if got := globals(st); !slices.Equal(got, []string{"10.70.1.1/24", "fd42:1::1/64"}) {
		t.Errorf("addresses %v", got)
	}
	for file, want := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/br0/accept_ra": "0"} {
		if b, err := os.ReadFile("/proc/sys/net/" + file); err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s is %q (%v), want %s", file, b, err, want)
		}
	}
	checkTable(t, []string{
		`iifname "br0" udp dport 67 accept`, `iifname "br0" udp dport 53 accept`, `iifname "br0" tcp dport 53 accept`,
		`iifname != "br0" iifname != "lo" ip daddr 10.70.1.1 udp dport 53 drop`, `iifname != "br0" iifname != "lo" ip daddr 10.70.1.1 tcp dport 53 drop`,
		`iifname != "br0" iifname != "lo" ip6 daddr fd42:1::1 udp dport 53 drop`, `iifname != "br0" iifname != "lo" ip6 daddr fd42:1::1 tcp dport 53 drop`,
		`iifname "br0" accept`, `oifname "br0" accept`,
	})
	name := nic(t, "br0", "c1", "00:16:3e:00:00:01", 1).Network
	err = s.Update(t.Context(), api.DefaultProject, name, api.NetworkPut{Config: api.Config{"ipv4.address": "10.70.9.1/24", "ipv4.nat": "true", "ipv6.address": "none"}})
	if err != nil {
		t.Fatal(err)
	}
	if st, _ = s.State(t.Context(), api.DefaultProject, "br0"); !slices.Equal(globals(st), []string{"10.70.9.1/24"}) {
		t.Errorf("after the update %v", globals(st))
	}
	checkTable(t, []string{
		`iifname "br0" udp dport 67 accept`, `iifname "br0" udp dport 53 accept`, `iifname "br0" tcp dport 53 accept`,
		`iifname != "br0" iifname != "lo" ip daddr 10.70.9.1 udp dport 53 drop`, `iifname != "br0" iifname != "lo" ip daddr 10.70.9.1 tcp dport 53 drop`,
		`iifname "br0" accept`, `oifname "br0" accept`, `ip saddr 10.70.9.0/24 ip daddr != 10.70.9.0/24 masquerade`,
	})
	if err := s.Delete(t.Context(), api.DefaultProject, name); err != nil {
		t.Fatal(err)
	}
	if _, err := s.State(t.Context(), api.DefaultProject, "br0"); !errs.IsNotFound(err) {
		t.Errorf("after the deletion: %v", err)
	}
	checkTable(t, nil)
	// Docker's forward chain is warned of at the next start.
	if out, err := exec.Command("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	if w := start(t, state.NewMemory()).Warnings(); len(w) != 1 || !strings.Contains(w[0].LastMessage, "chain FORWARD of nftables table ip filter") {
		t.Errorf("warnings %+v", w)
	}
}

func globals(st api.NetworkState) (out []string) {
	for _, a := range st.Addresses {
		if a.Scope == "global" {
			out = append(out, a.Address+"/"+a.Netmask)
		}
	}
	return out
}

// checkTable reads the rules back with nft, which knows nothing of how they were written.
func checkTable(t *testing.T, want []string) {
	t.Helper()
	out, err := exec.Command("nft", "list", "table", "inet", "shoal").CombinedOutput()
	if err != nil {
		t.Fatalf("%s", out)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, "accept") || strings.HasSuffix(line, "drop") || strings.HasSuffix(line, "masquerade") {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("rules\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAutoAddressesAvoidRoutes lets the service choose and compares with what the host has.
func TestAutoAddressesAvoidRoutes(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	for _, c := range []string{"ip link add up0 type veth peer name up1", "ip link set up0 up", "ip link set up1 up", "ip addr add 10.0.0.1/9 dev up0"} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", c, out)
		}
	}
	s := start(t, state.NewMemory())
	var all []netip.Prefix
	for i := range 8 {
		name := fmt.Sprintf("auto%d", i)
		create(t, s, name, nil)
		n, err := s.Get(t.Context(), api.DefaultProject, name)
		if err != nil {
			t.Fatal(err)
		}
		if n.Config["ipv4.nat"] != "true" || n.Config["ipv6.nat"] != "true" {
			t.Errorf("%s: %v", name, n.Config)
		}
		for _, k := range []string{"ipv4.address", "ipv6.address"} {
			all = append(all, netip.MustParsePrefix(n.Config[k]))
		}
	}
	up := netip.MustParsePrefix("10.0.0.0/9")
	for i, p := range all {
		if p.Overlaps(up) {
			t.Errorf("%s overlaps the host's %s", p, up)
		}
		for _, q := range all[:i] {
			if p.Overlaps(q) {
				t.Errorf("%s overlaps %s", p, q)
			}
		}
	}
}
