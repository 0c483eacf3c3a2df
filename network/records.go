package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

const (
	maxDescription = 1024
	maxConfigKeys  = 256
	maxConfigValue = 1 << 16 // of user.* keys
)

// Create makes a network and brings it up. Keys that choose addresses become addresses before anything is written;
// ipv4.address and ipv6.address are auto when they are not set, with NAT. When the bridge cannot be made nothing stays.
// errs.Exists when there is one of this name, or an interface of the host's.
func (s *Service) Create(ctx context.Context, project api.ProjectName, req api.NetworksPost) error {
	name, err := api.ParseNetworkName(req.Name)
	if err != nil {
		return err
	}
	if req.Type != "" && req.Type != "bridge" {
		return errs.Unsupported("network type %q: only bridge is known", req.Type)
	}
	if err := s.check(req.NetworkPut); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.networks.Get(recordKey(name.String())); err == nil {
		return errs.Exists("The network already exists")
	}
	config := maps.Clone(req.Config)
	if config == nil {
		config = api.Config{}
	}
	if err := s.fill(config, name.String()); err != nil {
		return err
	}
	rec := record{Type: "bridge", Description: req.Description, Config: config}
	if project != api.DefaultProject {
		rec.Project = project.String()
	}
	if err := s.record(ctx, project, name, rec); err != nil {
		return fmt.Errorf("create network %s: %w", name, err)
	}
	err = s.bringUp(ctx, name.String(), config)
	if err == nil {
		s.applyFirewall(ctx)
		return nil
	}
	undo := context.WithoutCancel(ctx)
	s.drop(name.String())
	_ = s.d.Links.Remove(undo, name.String())
	if derr := s.networks.Delete(undo, recordKey(name.String())); derr != nil {
		err = errors.Join(err, derr)
	}
	return fmt.Errorf("create network %s: %w", name, err)
}

// record writes the record of a new network, if the project may have one more.
func (s *Service) record(ctx context.Context, project api.ProjectName, name api.NetworkName, rec record) error {
	for {
		ops, err := s.d.Gate(project, policy.Contents{}, policy.OneNetwork(name.String()))
		if err != nil {
			return err
		}
		_, err = s.d.State.Txn(ctx, append(ops, s.networks.CreateOp(recordKey(name.String()), rec))...)
		if !errs.IsConflict(err) && !errs.IsExists(err) || ctx.Err() != nil {
			return err
		}
		if _, err := s.networks.Get(recordKey(name.String())); err == nil {
			return errs.Exists("The network already exists")
		}
	}
}

// holds reports whether a network belongs to a project.
func (r record) holds(project api.ProjectName) bool {
	return r.Project == project.String() || r.Project == "" && project == api.DefaultProject
}

// Names returns the names of a project's managed networks, sorted.
func (s *Service) Names(project api.ProjectName) []string {
	var out []string
	for it := range s.networks.All("") {
		if it.Value.holds(project) {
			out = append(out, nameOf(it.Key))
		}
	}
	return out
}

// fill replaces "auto" by addresses, checks the result and that it does not overlap another network's.
func (s *Service) fill(config api.Config, name string) error {
	taken, err := s.taken(name)
	if err != nil {
		return err
	}
	rnd := newRand()
	for _, family := range []string{"ipv4", "ipv6"} {
		key := family + ".address"
		v := config[key]
		if v != "" && v != "auto" {
			continue
		}
		if v == "" && family == "ipv6" && !s.d.Links.IPv6() {
			config[key] = "none"
			continue
		}
		if _, ok := config[family+".nat"]; !ok {
			config[family+".nat"] = "true"
		}
		pick := pickIPv4
		if family == "ipv6" {
			pick = pickIPv6
		}
		p, err := pick(rnd, taken)
		if err != nil {
			return err
		}
		config[key] = p.String()
	}
	spec, err := ParseConfig(config)
	if err != nil {
		return err
	}
	return s.checkOverlap(name, spec)
}

// checkOverlap refuses addresses of another managed network; what else the host routes is the administrator's business.
func (s *Service) checkOverlap(name string, spec Spec) error {
	for _, it := range s.networks.List("") {
		if nameOf(it.Key) == name {
			continue
		}
		other, err := ParseConfig(it.Value.Config)
		if err != nil {
			continue
		}
		for _, pair := range [][2]netip.Prefix{{spec.IPv4, other.IPv4}, {spec.IPv6, other.IPv6}} {
			if pair[0].IsValid() && pair[1].IsValid() && pair[0].Overlaps(pair[1]) {
				return errs.Invalid("address %s overlaps %s of network %q", pair[0], pair[1].Masked(), nameOf(it.Key))
			}
		}
	}
	return nil
}

func (s *Service) taken(except string) ([]netip.Prefix, error) {
	taken, err := s.d.Links.Taken()
	if err != nil {
		return nil, err
	}
	for _, it := range s.networks.List("") {
		if spec, err := ParseConfig(it.Value.Config); err == nil && nameOf(it.Key) != except {
			for _, p := range []netip.Prefix{spec.IPv4, spec.IPv6} {
				if p.IsValid() {
					taken = append(taken, p.Masked())
				}
			}
		}
	}
	return taken, nil
}

// check refuses what is too large, unknown or of the wrong type, whatever the host looks like.
func (s *Service) check(p api.NetworkPut) error {
	if len(p.Description) > maxDescription {
		return errs.Invalid("description of %d bytes: at most %d", len(p.Description), maxDescription)
	}
	if len(p.Config) > maxConfigKeys {
		return errs.Invalid("%d configuration keys: at most %d", len(p.Config), maxConfigKeys)
	}
	return s.keys.Validate(p.Config, "")
}

// Update is [Service.Modify] for who has decided already.
func (s *Service) Update(ctx context.Context, project api.ProjectName, name api.NetworkName, req api.NetworkPut) error {
	return s.Modify(ctx, project, name, func(api.NetworkPut) (api.NetworkPut, error) { return req, nil })
}

// Modify replaces description and configuration by what change makes of the current ones, which nobody else changes meanwhile, and brings the bridge into line. Where that fails the old configuration
// is put back. Interfaces keep their addresses where these fit; one with a static address that does not is a reason to refuse.
func (s *Service) Modify(ctx context.Context, project api.ProjectName, name api.NetworkName, change func(current api.NetworkPut) (api.NetworkPut, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	it, err := s.of(project, name.String())
	if err != nil {
		return err
	}
	req, err := change(api.NetworkPut{Config: maps.Clone(it.Value.Config), Description: it.Value.Description})
	if err != nil {
		return err
	}
	if err := s.check(req); err != nil {
		return err
	}
	old := it.Value
	config := maps.Clone(req.Config)
	if config == nil {
		config = api.Config{}
	}
	for _, key := range []string{"ipv4.address", "ipv6.address"} { // unset is not "choose again"
		if config[key] == "" {
			config[key] = "none"
		}
	}
	if err := s.fill(config, name.String()); err != nil {
		return err
	}
	if err := s.checkFits(name.String(), config); err != nil {
		return err
	}
	it.Value.Description, it.Value.Config = req.Description, config
	if it, err = s.networks.Update(ctx, it); err != nil {
		return fmt.Errorf("update network %s: %w", name, err)
	}
	err = s.bringUp(ctx, name.String(), config)
	if err != nil {
		undo := context.WithoutCancel(ctx)
		it.Value = old
		if _, uerr := s.networks.Update(undo, it); uerr != nil {
			err = errors.Join(err, uerr)
		}
		err = errors.Join(fmt.Errorf("update network %s: %w", name, err), s.bringUp(undo, name.String(), old.Config))
	}
	s.applyFirewall(context.WithoutCancel(ctx))
	return err
}

func (s *Service) checkFits(network string, config api.Config) error {
	spec, err := ParseConfig(config)
	if err != nil {
		return err
	}
	for _, it := range s.leases.nics.List(state.Prefix(network)) {
		if a := it.Value.IPv4; it.Value.Static && (!spec.DHCP4 || !wholeRange(spec.IPv4).Contains(a) || a == spec.IPv4.Addr() || a == spec.Gateway) {
			return errs.Invalid("%s has the static address %s, which would not be one of network %q any more", nicLabel(it.Key), a, network)
		}
	}
	return nil
}

// Delete removes a network. errs.InvalidInput, as clients know it, while something uses it.
func (s *Service) Delete(ctx context.Context, project api.ProjectName, name api.NetworkName) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.of(project, name.String()); err != nil {
		return err
	}
	s.live.Lock()
	defer s.live.Unlock()
	if users := s.d.UsedBy(project, name); len(users) > 0 {
		return errs.Invalid("The network is currently in use: %s", strings.Join(users[:min(5, len(users))], ", "))
	}
	if nics := s.leases.nics.List(state.Prefix(name.String())); len(nics) > 0 {
		return errs.Invalid("The network is currently in use: %s", nicLabel(nics[0].Key))
	}
	var ops []state.Op
	for _, it := range s.leases.addrs.List(state.Prefix(name.String())) {
		ops = append(ops, s.leases.addrs.DeleteOp(it))
	}
	for _, it := range s.leases.hws.List(state.Prefix(name.String())) {
		ops = append(ops, s.leases.hws.DeleteOp(it))
	}
	it, err := s.get(name.String())
	if err != nil {
		return err
	}
	// At most two operations for each stray lease besides this one. From here on a crash finishes the deletion: the next
	// start removes a bridge without a record.
	if _, err := s.d.State.Txn(ctx, append(ops, s.networks.DeleteOp(it))...); err != nil {
		return fmt.Errorf("delete network %s: %w", name, err)
	}
	s.drop(name.String())
	ctx = context.WithoutCancel(ctx)
	s.applyFirewall(ctx)
	if err := s.d.Links.Remove(ctx, name.String()); err != nil && !errs.IsExists(err) {
		return fmt.Errorf("delete network %s: %w", name, err)
	}
	return nil
}

func (s *Service) get(name string) (state.Item[record], error) {
	it, err := s.networks.Get(recordKey(name))
	if errs.IsNotFound(err) {
		return it, errs.NotFound("Network not found")
	}
	return it, err
}

// of is get for a network of a project: one of another project is not there.
func (s *Service) of(project api.ProjectName, name string) (state.Item[record], error) {
	it, err := s.get(name)
	if err == nil && !it.Value.holds(project) {
		err = errs.NotFound("Network not found")
	}
	return it, err
}

// NetworkExists reports errs.NotFound when the project has no such managed network.
func (s *Service) NetworkExists(project api.ProjectName, name api.NetworkName) error {
	_, err := s.of(project, name.String())
	if errs.IsNotFound(err) {
		return errs.NotFound("network %q not found", name)
	}
	return err
}

// List returns the managed networks of a project, those of the default one with the other interfaces of the host, sorted by name.
func (s *Service) List(ctx context.Context, project api.ProjectName) ([]api.Network, error) {
	var out []api.Network
	managed := map[string]bool{}
	for _, it := range s.networks.List("") {
		managed[nameOf(it.Key)] = true
		if it.Value.holds(project) {
			out = append(out, s.render(project, it))
		}
	}
	if project != api.DefaultProject {
		return out, nil
	}
	ifs, err := s.d.Links.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range ifs {
		if !managed[i.Name] {
			out = append(out, unmanaged(i.Name, i.Type))
		}
	}
	slices.SortFunc(out, func(a, b api.Network) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Get returns a managed network of the project or, for the default one, an interface of the host; errs.NotFound when there is neither.
func (s *Service) Get(ctx context.Context, project api.ProjectName, name string) (api.Network, error) {
	it, err := s.networks.Get(recordKey(name))
	if err == nil && it.Value.holds(project) {
		return s.render(project, it), nil
	}
	if err == nil || project != api.DefaultProject {
		return api.Network{}, errs.NotFound("Network not found")
	}
	if !errs.IsNotFound(err) {
		return api.Network{}, err
	}
	ifs, err := s.d.Links.Interfaces()
	if err != nil {
		return api.Network{}, err
	}
	for _, i := range ifs {
		if i.Name == name {
			return unmanaged(i.Name, i.Type), nil
		}
	}
	return api.Network{}, errs.NotFound("Network not found")
}

func unmanaged(name, kind string) api.Network {
	return api.Network{NetworkPut: api.NetworkPut{Config: api.Config{}}, Name: name, Type: kind, UsedBy: []string{}, Locations: []string{}}
}

// render never waits for a change that is under way: what a list shows may be a moment old.
func (s *Service) render(project api.ProjectName, it state.Item[record]) api.Network {
	n := api.Network{
		NetworkPut: api.NetworkPut{Config: maps.Clone(it.Value.Config), Description: it.Value.Description},
		Name:       nameOf(it.Key), Type: it.Value.Type, UsedBy: []string{}, Managed: true, Status: "Created", Locations: []string{"none"},
	}
	if name, err := api.ParseNetworkName(n.Name); err == nil {
		n.UsedBy = append(n.UsedBy, s.d.UsedBy(project, name)...)
	}
	if s.Reason(n.Name) != nil {
		n.Status = "Errored"
	}
	return n
}

// Reason says why a managed network is Errored, nil when it is up.
func (s *Service) Reason(name string) error {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	if err, ok := s.status[name]; ok {
		return err
	}
	return errs.Unavailable("network %q has not been brought up yet", name)
}

// State returns addresses and counters of a managed network or an interface of the host.
func (s *Service) State(ctx context.Context, project api.ProjectName, name string) (api.NetworkState, error) {
	if _, err := s.Get(ctx, project, name); err != nil {
		return api.NetworkState{}, err
	}
	st, ok, err := s.d.Links.State(name)
	if err == nil && !ok {
		err = errs.NotFound("Network not found")
	}
	return st, err
}
