package network_test

import (
	"encoding/json"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/testring"
)

// queues returns what the kernel says of an interface's queues: kind → rate in bytes per second.
func queues(t *testing.T, dev string) map[string]uint64 {
	t.Helper()
	b, err := exec.Command("tc", "-j", "qdisc", "show", "dev", dev).CombinedOutput()
	var list []struct {
		Kind    string
		Options struct{ Rate uint64 }
	}
	if err != nil || json.Unmarshal(b, &list) != nil {
		t.Fatalf("tc qdisc show dev %s: %v\n%s", dev, err, b)
	}
	out := map[string]uint64{}
	for _, q := range list {
		out[q.Kind] = q.Options.Rate
	}
	return out
}

// shapers are the interfaces that limits on what instances send need.
func shapers(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("ip", "-o", "link", "show", "type", "ifb").Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		names = append(names, strings.TrimSuffix(strings.Fields(line)[1], ":"))
	}
	return names
}

// transfer sends size bytes between the host and the guest, up or down, and returns the rate in bits per second at which they arrive.
func transfer(t *testing.T, pid int, up bool, size int) float64 {
	t.Helper()
	l, err := net.Listen("tcp", "10.70.1.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c net.Conn
	inside(t, pid, func() { c, err = net.Dial("tcp", l.Addr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	from, to := h, c
	if up {
		from, to = c, h
	}
	go func() { _, _ = from.Write(make([]byte, size)) }()
	began, buf := time.Now(), make([]byte, 64<<10)
	for n := 0; n < size; {
		m, err := to.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	return float64(size) * 8 / time.Since(began).Seconds()
}

// TestRates limits a NIC in both directions, changes the limits while the link is there, and leaves nothing behind.
func TestRates(t *testing.T) {
	need(t)
	testring.Need(t, 2, testring.Binary("tc"))
	if !testring.OwnNetns(t) {
		return
	}
	db := state.NewMemory()
	s := start(t, db)
	create(t, s, "br0", api.Config{"ipv4.address": "10.70.1.1/24", "ipv6.address": "none"})
	others := len(shapers(t)) // that every namespace begins with
	n := nic(t, "br0", "c1", "00:16:3e:00:00:01", guest(t))
	n.Ingress, n.Egress = 16_000_000, 24_000_000
	host := attach(t, s, n)
	lease(t, n.PID)
	if got := queues(t, host); got["tbf"] != 2_000_000 {
		t.Errorf("towards the instance: %v", got)
	}
	list := shapers(t)
	if len(list) != others+1 {
		t.Fatalf("interfaces of type ifb: %v", list)
	}
	if got := queues(t, list[others]); got["tbf"] != 3_000_000 {
		t.Errorf("from the instance: %v", got)
	}
	// A limit is the most that gets through; how much less it is depends on how busy the machine is.
	for up, limit := range map[bool]float64{false: 16e6, true: 24e6} {
		if got := transfer(t, n.PID, up, 3<<20); got > limit*1.1 {
			t.Errorf("up %v: %.1f Mbit/s get through a limit of %.0f", up, got/1e6, limit/1e6)
		} else {
			t.Logf("up %v: %.1f Mbit/s of %.0f", up, got/1e6, limit/1e6)
		}
	}

	n.Ingress, n.Egress = 0, 8_000_000
	if again := attach(t, s, n); again != host {
		t.Errorf("other limits made %s of %s", again, host)
	}
	if got := queues(t, host); got["tbf"] != 0 {
		t.Errorf("a limit that was taken away: %v", got)
	}
	if got := queues(t, shapers(t)[others]); got["tbf"] != 1_000_000 {
		t.Errorf("another limit from the instance: %v", got)
	}
	n.Egress = 0
	attach(t, s, n)
	if got := queues(t, host); len(shapers(t)) != others || got["ingress"] != 0 || len(got) != 1 {
		t.Errorf("without limits: %v, %v", got, shapers(t))
	}

	// What a crash or the end of the instance leaves goes with the next start, the detachment or the next life.
	n.Egress = 8_000_000
	host = attach(t, s, n)
	n.PID = guest(t)
	attach(t, s, n)
	eventually(t, "the next life has the limit, and only it", func() bool { return len(shapers(t)) == others+1 })
	if err := s.Detach(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if got := shapers(t); len(got) != others {
		t.Errorf("left after the detachment: %v", got)
	}
	n.PID, n.HostName = guest(t), "c1host"
	attach(t, s, n)
	s.Close()
	if err := exec.Command("ip", "link", "del", "c1host").Run(); err != nil {
		t.Fatal(err)
	}
	start(t, db)
	eventually(t, "what a crash left is removed", func() bool { return len(shapers(t)) == others })
}
