package dns

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	forwardTimeout = 2 * time.Second // for each resolver
	maxResolvers   = 3
	maxInFlight    = 256
	resolvConfAge  = 5 * time.Second
)

// Upstream forwards to the resolvers of a resolv.conf, read again when it is older than five seconds. Safe for
// concurrent use.
type Upstream struct {
	path   string
	avoid  func(netip.Addr) bool
	slots  chan struct{}
	mu     sync.Mutex
	read   time.Time
	server []string
}

// NewUpstream returns a forwarder for path, usually /etc/resolv.conf. avoid names addresses that must not be asked
// because they are ours: a query would go round for ever.
func NewUpstream(path string, avoid func(netip.Addr) bool) *Upstream {
	return &Upstream{path: path, avoid: avoid, slots: make(chan struct{}, maxInFlight)}
}

// Forward asks one resolver after the other; the answer must fit the question. nil when nobody answered, or when too
// many queries wait for answers already.
func (u *Upstream) Forward(ctx context.Context, q *dns.Msg, tcp bool) *dns.Msg {
	select {
	case u.slots <- struct{}{}:
		defer func() { <-u.slots }()
	default:
		return nil
	}
	out := new(dns.Msg) // the guest's packet is not passed on, only its question
	out.SetQuestion(q.Question[0].Name, q.Question[0].Qtype)
	out.CheckingDisabled = q.CheckingDisabled
	if o := q.IsEdns0(); o != nil {
		out.SetEdns0(udpSize, o.Do())
	}
	c := &dns.Client{Net: "udp", Timeout: forwardTimeout, UDPSize: udpSize}
	if tcp {
		c.Net = "tcp"
	}
	for _, s := range u.resolvers() {
		r, _, err := c.ExchangeContext(ctx, out, s)
		if err != nil || r == nil || !answers(r, out) {
			continue
		}
		if r.Rcode == dns.RcodeServerFailure || r.Rcode == dns.RcodeRefused {
			continue
		}
		return r
	}
	return nil
}

func answers(r, q *dns.Msg) bool {
	return r.Response && len(r.Question) == 1 && strings.EqualFold(r.Question[0].Name, q.Question[0].Name) &&
		r.Question[0].Qtype == q.Question[0].Qtype && r.Question[0].Qclass == q.Question[0].Qclass
}

func (u *Upstream) resolvers() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.read) < resolvConfAge {
		return u.server
	}
	u.read = time.Now()
	c, err := dns.ClientConfigFromFile(u.path)
	if err != nil {
		return u.server
	}
	var out []string
	for _, s := range c.Servers {
		a, err := netip.ParseAddr(s)
		if err != nil || u.avoid != nil && u.avoid(a) || len(out) == maxResolvers {
			continue
		}
		out = append(out, net.JoinHostPort(s, c.Port))
	}
	u.server = slices.Clip(out)
	return u.server
}
