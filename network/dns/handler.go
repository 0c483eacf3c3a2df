package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// ttl of our own answers in seconds: an address changes only with configuration, but then at once.
const ttl = 5

// udpSize is the largest answer sent in a datagram (the size that fragments nowhere, as the DNS flag day 2020 chose).
const udpSize = 1232

// Names says which instance has which address.
type Names interface {
	// Addrs returns the addresses of a name without the domain; ok is false when there is no such name.
	Addrs(name string) (addrs []netip.Addr, ok bool)
	// Name returns the name of an address without the domain; "" when it has none.
	Name(addr netip.Addr) string
}

// Forwarder asks somebody else. It returns nil when there is no answer.
type Forwarder interface {
	Forward(ctx context.Context, q *dns.Msg, tcp bool) *dns.Msg
}

// Handler answers queries. Safe for concurrent use.
type Handler struct {
	Domain   string // without a final dot
	Prefixes []netip.Prefix
	Names    Names // nil: no instance has a name here
	Forward  Forwarder
	Local    func(netip.Addr) bool // is this an address of the host?
	Log      *slog.Logger
}

// ServeDNS implements dns.Handler.
func (h *Handler) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	defer func() {
		if p := recover(); p != nil {
			h.Log.Error("DNS query caused a panic", "err", p)
			w.Close()
		}
	}()
	from, tcp := remote(w.RemoteAddr())
	if !h.allowed(from) {
		w.Close() // closes a TCP connection; a datagram is just not answered: no tool for reflection
		return
	}
	r := h.Answer(context.Background(), q, tcp)
	size := dns.MaxMsgSize
	if !tcp {
		size = dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = min(max(int(o.UDPSize()), dns.MinMsgSize), udpSize)
		}
	}
	r.Truncate(size)
	if err := w.WriteMsg(r); err != nil {
		h.Log.Debug("send DNS answer", "err", err)
	}
}

func remote(a net.Addr) (netip.Addr, bool) {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}, false
	}
	return ap.Addr().Unmap().WithZone(""), a.Network() == "tcp"
}

func (h *Handler) allowed(from netip.Addr) bool {
	return from.IsValid() && (from.IsLoopback() || from.IsLinkLocalUnicast() || h.inside(from) || h.Local != nil && h.Local(from))
}

func (h *Handler) inside(a netip.Addr) bool {
	return slices.ContainsFunc(h.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Answer returns the reply to a query; it is never nil.
func (h *Handler) Answer(ctx context.Context, q *dns.Msg, tcp bool) *dns.Msg {
	r := new(dns.Msg)
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery {
		return r.SetRcode(q, dns.RcodeFormatError)
	}
	qu := q.Question[0]
	switch {
	case qu.Qclass != dns.ClassINET, qu.Qtype == dns.TypeAXFR, qu.Qtype == dns.TypeIXFR, qu.Qtype == dns.TypeANY:
		return r.SetRcode(q, dns.RcodeRefused)
	case h.own(qu):
		h.answerOwn(r, q)
	default:
		if !q.RecursionDesired || h.Forward == nil {
			return r.SetRcode(q, dns.RcodeRefused)
		}
		f := h.Forward.Forward(ctx, q, tcp)
		if f == nil {
			return r.SetRcode(q, dns.RcodeServerFailure)
		}
		f.Id, f.Question, f.Response = q.Id, q.Question, true
		return f
	}
	r.RecursionAvailable = h.Forward != nil
	if o := q.IsEdns0(); o != nil {
		r.SetEdns0(udpSize, false)
	}
	return r
}

// own reports whether nobody but us may answer the question.
func (h *Handler) own(qu dns.Question) bool {
	name := strings.ToLower(strings.TrimSuffix(qu.Name, "."))
	if name == h.Domain || strings.HasSuffix(name, "."+h.Domain) {
		return true
	}
	if a, ok := reverse(name); ok {
		return h.inside(a)
	}
	return name != "" && !strings.Contains(name, ".") && (qu.Qtype == dns.TypeA || qu.Qtype == dns.TypeAAAA)
}

func (h *Handler) answerOwn(r, q *dns.Msg) {
	r.SetReply(q)
	r.Authoritative = true
	qu := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(qu.Name, "."))
	hdr := dns.RR_Header{Name: qu.Name, Rrtype: qu.Qtype, Class: dns.ClassINET, Ttl: ttl}
	known := name == h.Domain
	if a, ok := reverse(name); ok {
		n := ""
		if h.Names != nil {
			n = h.Names.Name(a)
		}
		known = n != ""
		if known && qu.Qtype == dns.TypePTR {
			r.Answer = append(r.Answer, &dns.PTR{Hdr: hdr, Ptr: dns.Fqdn(n + "." + h.Domain)})
		}
	} else if host := strings.TrimSuffix(name, "."+h.Domain); !known && h.Names != nil {
		var addrs []netip.Addr
		addrs, known = h.Names.Addrs(host)
		for _, a := range addrs {
			switch {
			case qu.Qtype == dns.TypeA && a.Is4():
				r.Answer = append(r.Answer, &dns.A{Hdr: hdr, A: a.AsSlice()})
			case qu.Qtype == dns.TypeAAAA && a.Is6():
				r.Answer = append(r.Answer, &dns.AAAA{Hdr: hdr, AAAA: a.AsSlice()})
			}
		}
	}
	if !known {
		r.Rcode = dns.RcodeNameError
	}
	if len(r.Answer) == 0 { // says for how long the absence holds
		r.Ns = append(r.Ns, &dns.SOA{
			Hdr: dns.RR_Header{Name: dns.Fqdn(h.Domain), Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
			Ns:  dns.Fqdn("ns." + h.Domain), Mbox: dns.Fqdn("root." + h.Domain), Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
		})
	}
}

// reverse parses 4.3.2.1.in-addr.arpa and the long form of ip6.arpa; name is in lower case without a final dot.
func reverse(name string) (netip.Addr, bool) {
	if s, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		p := strings.Split(s, ".")
		slices.Reverse(p)
		a, err := netip.ParseAddr(strings.Join(p, "."))
		return a, err == nil && a.Is4()
	}
	s, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(s) != 63 {
		return netip.Addr{}, false
	}
	p := strings.Split(s, ".")
	slices.Reverse(p)
	var b strings.Builder
	for i, digit := range p {
		if len(digit) != 1 {
			return netip.Addr{}, false
		}
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(digit)
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is6()
}
