package dns_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/network/dns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type names map[string][]string

func (n names) Addrs(name string) (out []netip.Addr, ok bool) {
	for _, a := range n[name] {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, n[name] != nil
}

func (n names) Name(a netip.Addr) string {
	for name, addrs := range n {
		if slices.Contains(addrs, a.String()) {
			return name
		}
	}
	return ""
}

// upstream answers all and counts.
type upstream struct{ asked []string }

func (u *upstream) Forward(_ context.Context, q *mdns.Msg, _ bool) *mdns.Msg {
	u.asked = append(u.asked, q.Question[0].Name)
	if strings.HasPrefix(q.Question[0].Name, "dead.") {
		return nil
	}
	r := new(mdns.Msg).SetReply(q)
	r.Id++ // not the guest's
	r.Answer = append(r.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET}, A: net.IPv4(192, 0, 2, 9)})
	return r
}

func handler() (*dns.Handler, *upstream) {
	u := &upstream{}
	return &dns.Handler{
		Domain: "lxd", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd42::/64")}, Forward: u, Log: slog.New(slog.DiscardHandler),
		Names: names{"web": {"10.1.2.10", "fd42::216:3eff:fe00:1"}, "web.shop": {"10.1.2.11"}, "bare": {}},
	}, u
}

func TestAnswer(t *testing.T) {
	const nx, ok, refused, fail, form = mdns.RcodeNameError, mdns.RcodeSuccess, mdns.RcodeRefused, mdns.RcodeServerFailure, mdns.RcodeFormatError
	for _, tt := range []struct {
		name    string
		qname   string
		qtype   uint16
		rcode   int
		want    []string
		forward bool
	}{
		{"name", "web.", mdns.TypeA, ok, []string{"10.1.2.10"}, false},
		{"full name", "web.lxd.", mdns.TypeA, ok, []string{"10.1.2.10"}, false},
		{"case", "WeB.LxD.", mdns.TypeA, ok, []string{"10.1.2.10"}, false},
		{"IPv6", "web.", mdns.TypeAAAA, ok, []string{"fd42::216:3eff:fe00:1"}, false},
		{"other type", "web.lxd.", mdns.TypeTXT, ok, nil, false},
		{"other project", "web.shop.lxd.", mdns.TypeA, ok, []string{"10.1.2.11"}, false},
		{"project alone", "shop.lxd.", mdns.TypeA, nx, nil, false},
		{"below a name", "x.web.lxd.", mdns.TypeA, nx, nil, false},
		{"without addresses", "bare.", mdns.TypeA, ok, nil, false},
		{"unknown", "nobody.lxd.", mdns.TypeA, nx, nil, false},
		{"unknown label", "nobody.", mdns.TypeA, nx, nil, false},
		{"the domain", "lxd.", mdns.TypeA, ok, nil, false},
		{"other domain that ends alike", "weblxd.example.", mdns.TypeA, ok, []string{"192.0.2.9"}, true},
		{"reverse", "10.2.1.10.in-addr.arpa.", mdns.TypePTR, ok, []string{"web.lxd."}, false},
		{"reverse unknown", "77.2.1.10.in-addr.arpa.", mdns.TypePTR, nx, nil, false},
		{"reverse IPv6", "1.0.0.0.0.0.e.f.f.f.e.3.6.1.2.0.0.0.0.0.0.0.0.0.0.0.0.0.2.4.d.f.ip6.arpa.", mdns.TypePTR, ok, []string{"web.lxd."}, false},
		{"reverse elsewhere", "9.2.0.192.in-addr.arpa.", mdns.TypePTR, ok, []string{"192.0.2.9"}, true},
		{"world", "example.com.", mdns.TypeA, ok, []string{"192.0.2.9"}, true},
		{"top level", "com.", mdns.TypeNS, ok, []string{"192.0.2.9"}, true},
		{"world, nobody answers", "dead.example.", mdns.TypeA, fail, nil, true},
		{"any", "web.lxd.", mdns.TypeANY, refused, nil, false},
		{"transfer", "lxd.", mdns.TypeAXFR, refused, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, u := handler()
			q := new(mdns.Msg).SetQuestion(tt.qname, tt.qtype)
			r := h.Answer(t.Context(), q, false)
			if r.Rcode != tt.rcode || !slices.Equal(texts(r), tt.want) || (len(u.asked) > 0) != tt.forward {
				t.Errorf("%s %v, forwarded %v; want %s %v, forwarded %v", mdns.RcodeToString[r.Rcode], texts(r), u.asked, mdns.RcodeToString[tt.rcode], tt.want, tt.forward)
			}
			if r.Id != q.Id || !r.Response || len(r.Question) != 1 || r.Question[0] != q.Question[0] {
				t.Errorf("not an answer to the question: %v", r)
			}
			if _, err := r.Pack(); err != nil {
				t.Errorf("cannot be sent: %v", err)
			}
		})
	}
	h, _ := handler()
	for name, q := range map[string]*mdns.Msg{
		"no question": {}, "update": new(mdns.Msg).SetUpdate("lxd."),
		"two questions": {Question: []mdns.Question{{Name: "web.", Qtype: 1, Qclass: 1}, {Name: "web.", Qtype: 1, Qclass: 1}}},
	} {
		if r := h.Answer(t.Context(), q, false); r.Rcode != form {
			t.Errorf("%s: %s", name, mdns.RcodeToString[r.Rcode])
		}
	}
	h.Names = nil // dns.mode none
	if r := h.Answer(t.Context(), new(mdns.Msg).SetQuestion("web.lxd.", mdns.TypeA), false); r.Rcode != nx {
		t.Errorf("without names: %v", r)
	}
}

func texts(r *mdns.Msg) (out []string) {
	for _, rr := range r.Answer {
		switch v := rr.(type) {
		case *mdns.A:
			out = append(out, v.A.String())
		case *mdns.AAAA:
			out = append(out, v.AAAA.String())
		case *mdns.PTR:
			out = append(out, v.Ptr)
		}
	}
	return out
}

func FuzzAnswer(f *testing.F) {
	for _, n := range []string{"web.lxd.", "10.2.1.10.in-addr.arpa.", "1.0.0.ip6.arpa.", "."} {
		b, _ := new(mdns.Msg).SetQuestion(n, mdns.TypePTR).SetEdns0(4096, true).Pack()
		f.Add(b)
	}
	h, _ := handler()
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(mdns.Msg)
		if q.Unpack(b) != nil {
			return
		}
		r := h.Answer(context.Background(), q, false)
		if _, err := r.Pack(); err != nil && len(q.Question) == 1 {
			t.Fatalf("answer cannot be sent: %v\n%v", err, r)
		}
	})
}

// writer is a client somewhere.
type writer struct {
	mdns.ResponseWriter
	from   net.Addr
	got    *mdns.Msg
	closed bool
}

func (w *writer) RemoteAddr() net.Addr       { return w.from }
func (w *writer) WriteMsg(m *mdns.Msg) error { w.got = m; return nil }
func (w *writer) Close() error               { w.closed = true; return nil }

// TestWhoMayAsk: the network, the host, nobody else.
func TestWhoMayAsk(t *testing.T) {
	h, u := handler()
	h.Local = func(a netip.Addr) bool { return a == netip.MustParseAddr("198.51.100.1") }
	for from, want := range map[string]bool{
		"10.1.2.10": true, "fd42::9": true, "127.0.0.1": true, "fe80::1": true, "198.51.100.1": true,
		"10.1.3.10": false, "198.51.100.2": false, "2001:db8::1": false, "fd42:0:0:1::9": false,
	} {
		w := &writer{from: &net.UDPAddr{IP: net.ParseIP(from), Port: 999}}
		h.ServeDNS(w, new(mdns.Msg).SetQuestion("example.com.", mdns.TypeA))
		if (w.got != nil) != want || w.closed == want {
			t.Errorf("%s: answered %v", from, w.got != nil)
		}
	}
	if len(u.asked) != 5 {
		t.Errorf("forwarded %d times", len(u.asked))
	}
}

// TestAnswersFitDatagrams: what does not fit is cut, says so, and is whole by TCP.
func TestAnswersFitDatagrams(t *testing.T) {
	h, _ := handler()
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("10.1.2.%d", i+1))
	}
	h.Names = names{"many": many}
	for _, tt := range []struct {
		from net.Addr
		edns uint16
		max  int
	}{
		{&net.UDPAddr{IP: net.IPv4(10, 1, 2, 3)}, 0, 512},
		{&net.UDPAddr{IP: net.IPv4(10, 1, 2, 3)}, 65535, 1232},
		{&net.UDPAddr{IP: net.IPv4(10, 1, 2, 3)}, 1, 512},
		{&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3)}, 0, 65535},
	} {
		q := new(mdns.Msg).SetQuestion("many.lxd.", mdns.TypeA)
		if tt.edns > 0 {
			q.SetEdns0(tt.edns, false)
		}
		w := &writer{from: tt.from}
		h.ServeDNS(w, q)
		if w.got.Len() > tt.max || w.got.Truncated != (tt.max < 65535) || tt.max == 65535 && len(w.got.Answer) != 200 {
			t.Errorf("%v, EDNS %d: %d bytes, truncated %v, %d answers", tt.from, tt.edns, w.got.Len(), w.got.Truncated, len(w.got.Answer))
		}
	}
}

// TestUpstream has resolvers that are silent, refuse, answer another question, and one that is good.
func TestUpstream(t *testing.T) {
	var asked atomic.Int32
	resolver := func(reply func(*mdns.Msg) *mdns.Msg) string {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
			asked.Add(1)
			if r := reply(q); r != nil {
				_ = w.WriteMsg(r)
			}
		})}
		done := make(chan struct{})
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = srv.Shutdown(); <-done })
		return pc.LocalAddr().String()
	}
	good := resolver(func(q *mdns.Msg) *mdns.Msg {
		r := new(mdns.Msg).SetReply(q)
		r.Answer = append(r.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: q.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)})
		return r
	})
	refuses := resolver(func(q *mdns.Msg) *mdns.Msg { return new(mdns.Msg).SetRcode(q, mdns.RcodeRefused) })
	lies := resolver(func(q *mdns.Msg) *mdns.Msg {
		r := new(mdns.Msg).SetReply(q)
		r.Question[0].Name = "bank.example."
		return r
	})
	for _, tt := range []struct {
		name    string
		servers []string
		want    bool
	}{
		{"good", []string{good}, true},
		{"refuses, then good", []string{refuses, good}, true},
		{"another question, then good", []string{lies, good}, true},
		{"only bad ones", []string{refuses, lies}, false},
		{"none", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := dns.NewUpstreamAt(tt.servers)
			r := u.Forward(t.Context(), new(mdns.Msg).SetQuestion("example.com.", mdns.TypeA), false)
			if (r != nil) != tt.want {
				t.Errorf("answer %v", r)
			}
		})
	}
	// Our own addresses are never asked.
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 10.1.2.1\nnameserver fe80::1%eth0\nsearch x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := dns.NewUpstream(path, func(a netip.Addr) bool { return a == netip.MustParseAddr("10.1.2.1") })
	if got := dns.Resolvers(u); !slices.Equal(got, []string{"[fe80::1%eth0]:53"}) {
		t.Errorf("resolvers %v", got)
	}
}
