package network_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/internal/testring"
)

// TestSameHostNameAgain stops and starts an instance whose host end has a name, faster than the kernel forgets the old one.
func TestSameHostNameAgain(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	s := start(t, state.NewMemory())
	create(t, s, "br0", api.Config{"ipv4.address": "10.70.1.1/24", "ipv6.address": "none"})
	c := nic(t, "br0", "c1", "00:16:3e:00:00:01", 0)
	c.HostName = "vethc1"
	for range 10 {
		c.PID = guest(t)
		attach(t, s, c)
		if got := attach(t, s, c); got != "vethc1" {
			t.Fatalf("host end is called %s", got)
		}
		gone := c
		gone.PID = 0
		if err := s.Detach(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
	}
	c.PID = guest(t)
	attach(t, s, c)
	s.Close() // nothing runs in the background any more
	if out, err := exec.Command("ip", "-o", "link", "show", "type", "veth", "master", "br0", "up").Output(); err != nil || strings.Count(string(out), "vethc1@") != 1 || strings.Count(string(out), "\n") != 1 {
		t.Errorf("host ends:\n%s%v", out, err)
	}
	in(t, c.PID, "ip", "link", "show", "eth0")
}

// TestGuestFloodsDHCP: what one guest makes up, another does not notice.
func TestGuestFloodsDHCP(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	s := start(t, state.NewMemory())
	create(t, s, "br0", api.Config{"ipv4.address": "10.70.1.1/24", "ipv4.dhcp.ranges": "10.70.1.10-10.70.1.29", "ipv6.address": "none"})
	evil, good := guest(t), guest(t)
	attach(t, s, nic(t, "br0", "evil", "00:16:3e:00:00:01", evil))
	attach(t, s, nic(t, "br0", "good", "00:16:3e:00:00:02", good))
	lease(t, evil)
	var conn net.Conn
	inside(t, evil, func() { conn, _ = net.Dial("udp", "10.70.1.1:67") })
	if conn == nil {
		t.Fatal("no socket")
	}
	defer conn.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := uint32(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			hw := binary.BigEndian.AppendUint32([]byte{2, 0}, i)
			for _, mt := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest} {
				m, err := dhcpv4.New(dhcpv4.WithHwAddr(hw), dhcpv4.WithMessageType(mt), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 70, 1, byte(10+i%20)))))
				if err == nil {
					_, _ = conn.Write(m.ToBytes())
				}
			}
			_, _ = conn.Write(hw)
		}
	}()
	got := lease(t, good)
	close(stop)
	<-done
	if got["hostname"] != "good" {
		t.Errorf("told %v", got)
	}
	leases, err := s.Leases(t.Context(), api.DefaultProject, nic(t, "br0", "good", "", 1).Network)
	if err != nil {
		t.Fatal(err)
	}
	strangers := 0
	for _, l := range leases {
		if l.Hostname == "" {
			strangers++
		}
	}
	if strangers > 5 {
		t.Errorf("%d strangers of a pool of 20", strangers)
	}
}

// TestAttachIsBornInside looks at what the instance got and at the host's end, for new instances and for ones that were
// there before, and prints how long attaching took.
func TestAttachIsBornInside(t *testing.T) {
	need(t)
	if !testring.OwnNetns(t) {
		return
	}
	s := start(t, state.NewMemory())
	create(t, s, "br0", api.Config{"ipv4.address": "10.70.1.1/24", "ipv6.address": "fd42:1::1/64", "bridge.mtu": "1400"})
	const n = 20
	var first, again time.Duration
	for i := range n {
		pid := guest(t)
		c := nic(t, "br0", fmt.Sprintf("c%d", i), fmt.Sprintf("00:16:3e:00:00:%02x", i), pid)
		t0 := time.Now()
		attach(t, s, c)
		first += time.Since(t0)
		c.PID = guest(t)
		t0 = time.Now()
		attach(t, s, c)
		again += time.Since(t0)
		got := in(t, c.PID, "ip", "-o", "link", "show", "eth0")
		if !strings.Contains(got, "link/ether "+c.HWAddr) || !strings.Contains(got, "mtu 1400") || !strings.Contains(got, "state DOWN") {
			t.Fatalf("inside: %s", got)
		}
	}
	eventually(t, "one host end for each instance, up on the bridge", func() bool {
		out, _ := exec.Command("ip", "-o", "link", "show", "type", "veth", "master", "br0", "up").Output()
		return strings.Count(string(out), "\n") == n
	})
	fmt.Printf("attach: new %v, after stop and start %v (mean of %d)\n", first/n, again/n, n)
}
