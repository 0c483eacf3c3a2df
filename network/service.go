package network

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/internal/clock"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/schema"
	"github.com/shoal-project/shoal/internal/state"
	"github.com/shoal-project/shoal/network/bridge"
	"github.com/shoal-project/shoal/network/firewall"
)

// Links is what networks need of the host's links; bridge.Host satisfies it.
type Links interface {
	Ensure(ctx context.Context, c bridge.Config) error
	Remove(ctx context.Context, name string) error
	Bridges() ([]string, error)
	Taken() ([]netip.Prefix, error)
	Forward(v4, v6 bool) error
	IPv6() bool
	Plug(ctx context.Context, p bridge.Port) (string, error)
	Plugged(host string, p bridge.Port) bool
	Unplug(ctx context.Context, host string) error
	Condemn(host string) (remove func() error)
	Ports() (map[string]string, error)
	Shape(host string, r bridge.Rates) error
	SweepShapers() error
	Interfaces() ([]bridge.Interface, error)
	State(name string) (api.NetworkState, bool, error)
}

// Firewall is the packet filter; firewall.Table satisfies it.
type Firewall interface {
	Replace(ctx context.Context, rules firewall.Rules) error
	Obstacles(ctx context.Context) ([]string, error)
}

// Servers starts what answers guests on one bridge, and what it returns stops it. NewServers makes the real ones.
type Servers interface {
	Serve(network string, spec Spec, src Source) (io.Closer, error)
}

// Deps is what the service needs.
type Deps struct {
	// ID tells this daemon's links from those of another daemon on the host; it must stay the same over restarts.
	// 1–16 letters and digits.
	ID       string
	State    *state.DB
	Clock    clock.Clock
	Logger   *slog.Logger
	Links    Links    // nil: the host's
	Firewall Firewall // nil: the nftables table "shoal"
	Servers  Servers  // nil: the real ones
	// UsedBy returns the URLs of the instances and profiles that use a network; may be nil.
	UsedBy func(project api.ProjectName, network api.NetworkName) []string
	// Gate decides whether a project may have networks of these names more; what it returns must be part of the transaction that writes
	// them, which fails with Conflict or Exists when the answer has become stale. May be nil.
	Gate func(project api.ProjectName, before, after policy.Contents) ([]state.Op, error)
}

// Service is the networks of this machine. Safe for concurrent use.
type Service struct {
	d        Deps
	networks *state.Table[record]
	leases   *leases
	keys     *schema.Table

	mu      sync.Mutex // serialises changes of networks and of what runs for them
	running map[string]*running
	stopped bool

	live sync.RWMutex // read by those who claim addresses, written by who deletes a network

	seenMu   sync.Mutex          // for the three maps below; never held across a call
	ports    map[string][]string // label of a NIC → its host ends
	status   map[string]error    // network → why it is not as it should be; no entry: not brought up yet
	warnings map[string]warning  // by kind

	bg sync.WaitGroup // deletions of links nobody waits for
}

// record is a network in the table "networks". Bridges are interfaces of the host, so there is one of a name whatever the
// projects: the key says nothing of the project, the record does.
type record struct {
	Project     string     `json:"project,omitempty"` // whose it is; empty: the default project's
	Type        string     `json:"type"`
	Description string     `json:"description"`
	Config      api.Config `json:"config"`
}

func recordKey(name string) string { return state.Key(api.DefaultProject.String(), name) }

// nameOf returns the name of a network from its key.
func nameOf(key string) string {
	p := state.SplitKey(key)
	return p[len(p)-1]
}

// running is what is up for one network.
type running struct {
	spec    Spec
	servers io.Closer // nil when they could not be started
}

// New returns the service. Nothing happens on the host until Run.
func New(d Deps) (*Service, error) {
	if d.State == nil || d.Clock == nil || d.Logger == nil {
		return nil, errs.Invalid("network: State, Clock and Logger are needed")
	}
	if len(d.ID) < 1 || len(d.ID) > 16 {
		return nil, errs.Invalid("network: ID %q must have 1-16 characters", d.ID)
	}
	if d.Links == nil {
		d.Links = bridge.New(d.ID)
	}
	if d.Firewall == nil {
		d.Firewall = firewall.New("shoal")
	}
	if d.Servers == nil {
		d.Servers = NewServers(d.Logger)
	}
	if d.UsedBy == nil {
		d.UsedBy = func(api.ProjectName, api.NetworkName) []string { return nil }
	}
	if d.Gate == nil {
		d.Gate = func(api.ProjectName, policy.Contents, policy.Contents) ([]state.Op, error) { return nil, nil }
	}
	return &Service{
		d:        d,
		networks: state.NewTable[record](d.State, state.Networks, 1),
		keys:     ConfigKeys(),
		leases:   newLeases(d.State, d.Clock.Now),
		running:  map[string]*running{},
		ports:    map[string][]string{},
		status:   map[string]error{},
		warnings: map[string]warning{},
	}, nil
}

// Start brings all networks up. An error of one network is logged and listed, never returned; what is returned means
// that the host's links cannot be seen at all. Call it once, before instances start.
func (s *Service) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.sweep(ctx); err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	for _, it := range s.networks.List("") {
		name := nameOf(it.Key)
		if err := s.bringUp(ctx, name, it.Value.Config); err != nil {
			s.d.Logger.Error("network is not up", "network", name, "err", err)
		}
	}
	s.applyFirewall(ctx)
	s.look(ctx)
	return nil
}

// Run waits until ctx ends and then stops the servers; it is Start's other half for a daemon that runs its services as
// functions. Links, addresses and rules stay: instances go on.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.Close()
	return nil
}

// Close stops the servers and waits for what runs in the background. Idempotent.
func (s *Service) Close() {
	s.mu.Lock()
	s.stopped = true
	for _, r := range s.running {
		r.stop()
	}
	s.mu.Unlock()
	s.bg.Wait()
}

func (r *running) stop() {
	if r != nil && r.servers != nil {
		r.servers.Close()
		r.servers = nil
	}
}

// sweep removes what a crash left without a record and learns which host ends exist.
func (s *Service) sweep(ctx context.Context) error {
	bridges, err := s.d.Links.Bridges()
	if err != nil {
		return err
	}
	for _, b := range bridges {
		if _, err := s.networks.Get(recordKey(b)); errs.IsNotFound(err) {
			s.d.Logger.Info("remove bridge without a network", "network", b)
			if err := s.d.Links.Remove(ctx, b); err != nil {
				s.d.Logger.Warn("remove bridge without a network", "network", b, "err", err)
			}
		}
	}
	ports, err := s.d.Links.Ports()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, it := range s.leases.nics.List("") {
		known[nicLabel(it.Key)] = true
	}
	for host, label := range ports {
		if known[label] {
			s.addPort(label, host)
		} else {
			s.unplugLater(host)
		}
	}
	return s.d.Links.SweepShapers()
}

// bringUp makes the host agree with a configuration. The caller holds s.mu.
func (s *Service) bringUp(ctx context.Context, name string, config api.Config) error {
	s.running[name].stop()
	r := &running{}
	s.running[name] = r
	err := s.raise(ctx, name, config, r)
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	s.status[name] = err
	return err
}

func (s *Service) raise(ctx context.Context, name string, config api.Config, r *running) (err error) {
	if r.spec, err = ParseConfig(config); err != nil {
		return err
	}
	c := bridge.Config{Name: name, HWAddr: r.spec.HWAddr, MTU: r.spec.MTU}
	if c.HWAddr == nil {
		c.HWAddr = s.bridgeHWAddr(name)
	}
	if c.MTU == 0 {
		c.MTU = defaultMTU
	}
	for _, p := range []netip.Prefix{r.spec.IPv4, r.spec.IPv6} {
		if p.IsValid() {
			c.Addrs = append(c.Addrs, p)
		}
	}
	if err := s.d.Links.Ensure(ctx, c); err != nil {
		return err
	}
	if err := s.d.Links.Forward(r.spec.IPv4.IsValid(), r.spec.IPv6.IsValid()); err != nil {
		return err
	}
	if s.stopped {
		return nil
	}
	r.servers, err = s.d.Servers.Serve(name, r.spec, &source{s: s, network: name, spec: r.spec})
	return err
}

// drop ends what runs for a network that is no more. The caller holds s.mu.
func (s *Service) drop(name string) {
	s.running[name].stop()
	delete(s.running, name)
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	delete(s.status, name)
}

// applyFirewall writes the rules of all networks. Without them networks work, but guests do not reach beyond the host.
// The caller holds s.mu.
func (s *Service) applyFirewall(ctx context.Context) {
	var rules firewall.Rules
	for name, r := range s.running {
		rules = append(rules, firewall.Network{
			Bridge: name, IPv4: r.spec.IPv4, IPv6: r.spec.IPv6, NAT4: r.spec.NAT4, NAT6: r.spec.NAT6,
			DHCP: r.spec.DHCP4, DNS: r.spec.IPv4.IsValid() || r.spec.IPv6.IsValid(),
		})
	}
	slices.SortFunc(rules, func(a, b firewall.Network) int { return slices.Compare([]byte(a.Bridge), []byte(b.Bridge)) })
	if err := s.d.Firewall.Replace(ctx, rules); err != nil {
		s.warn("firewall", fmt.Sprintf("instances reach nothing beyond this host: %v", err))
		return
	}
	s.warn("firewall", "")
}

// look warns of what others on this host did that stops our packets.
func (s *Service) look(ctx context.Context) {
	found, err := s.d.Firewall.Obstacles(ctx)
	if err != nil {
		s.d.Logger.Debug("look at other nftables tables", "err", err)
		return
	}
	msg := ""
	for _, f := range found {
		if msg != "" {
			msg += "; "
		}
		msg += f
	}
	s.warn("forward", msg)
}

// bridgeHWAddr is the bridge's hardware address where none is configured: always the same, so that guests need not
// learn a new router after a reboot.
func (s *Service) bridgeHWAddr(name string) net.HardwareAddr {
	h := fnv.New64a()
	io.WriteString(h, s.d.ID+"/"+name)
	n := h.Sum64()
	return net.HardwareAddr{0x00, 0x16, 0x3e, byte(n), byte(n >> 8), byte(n >> 16)}
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
