package instance

import (
	"context"
	"slices"
	"sync"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

// cpuTable is which CPUs the running instances of this node have. limits.cpu as a number leaves the choice to us: whenever
// an instance starts, ends or changes its limits, [config.Balance] chooses anew and those that move are told. All limits are
// written under its lock, so that a move never brings older limits back.
//
// Nothing of it is stored: after a restart of the daemon the drivers say where instances run, and nobody moves.
type cpuTable struct {
	mu   sync.Mutex
	runs map[string]*cpuRun // by runtime id
}

// cpuRun is one running instance.
type cpuRun struct {
	cfg    api.Config     // limits.* in force
	set    []int          // the CPUs it has; empty: all
	driver driver.Limiter // nil while it is being created, or when the driver cannot change limits
	unsure bool           // a change failed half-way, maybe: the next one is written whatever it says
}

// movable says that the process is there and its limits can be changed from now on.
func (t *cpuTable) movable(id string, d driver.Driver) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.runs[id]; r != nil {
		r.driver, _ = d.(driver.Limiter)
	}
}

func (t *cpuTable) put(id string, r *cpuRun) {
	if t.runs == nil {
		t.runs = map[string]*cpuRun{}
	}
	t.runs[id] = r
}

// balance chooses the CPUs of all. Instances that cannot be told keep theirs, but for the one named by id.
func (t *cpuTable) balance(id string, online []int) map[string][]int {
	pins := map[string]config.Pins{}
	for other, r := range t.runs {
		n := config.CPUCount(r.cfg)
		if r.driver == nil && other != id {
			n = 0
		}
		if n > 0 || len(r.set) > 0 {
			pins[other] = config.Pins{Count: n, Has: r.set}
		}
	}
	return config.Balance(online, pins)
}

// given is what a set in limits.cpu names; nil for a number and for nothing.
func given(cfg api.Config) []int {
	v := cfg["limits.cpu"]
	if v == "" || config.CPUCount(cfg) > 0 {
		return nil
	}
	set, _ := config.ParseCPUSet(v) // checked when it was written
	return set
}

// firstLimits are the limits of an instance that is about to start; it counts from now on, until releaseCPUs.
func (s *Service) firstLimits(ctx context.Context, id string, cfg api.Config) (driver.Limits, error) {
	host, err := s.d.Machine()
	if err != nil {
		return driver.Limits{}, err
	}
	s.cpus.mu.Lock()
	defer s.cpus.mu.Unlock()
	s.cpus.put(id, &cpuRun{cfg: cfg, set: given(cfg)})
	sets := s.cpus.balance(id, host.CPUs)
	l, err := config.Limits(cfg, sets[id], host)
	if err != nil {
		delete(s.cpus.runs, id)
		return l, errs.Classify(errs.InvalidInput, err)
	}
	s.cpus.runs[id].set = sets[id]
	s.moveCPUs(ctx, id, sets, host)
	return l, nil
}

// changeLimits gives a running instance the limits of cfg.
func (s *Service) changeLimits(ctx context.Context, e *entry, typ string, cfg api.Config) error {
	host, err := s.d.Machine()
	if err != nil {
		return err
	}
	s.cpus.mu.Lock()
	defer s.cpus.mu.Unlock()
	r := s.cpus.runs[e.id]
	if r == nil {
		return nil // it is just ending
	}
	was, err := config.Limits(r.cfg, r.set, host)
	if err != nil {
		was = driver.Limits{} // of a CPU that went away, for example
	}
	next := &cpuRun{cfg: cfg, set: given(cfg), driver: r.driver}
	if config.CPUCount(cfg) > 0 && config.CPUCount(r.cfg) > 0 {
		next.set = r.set
	}
	s.cpus.runs[e.id] = next
	sets := s.cpus.balance(e.id, host.CPUs)
	is, err := config.Limits(cfg, sets[e.id], host)
	if err == nil && (is != was || r.unsure) {
		err = s.setLimits(ctx, e.id, typ, is)
		r.unsure = err != nil
	} else if err != nil {
		err = errs.Classify(errs.InvalidInput, err)
	}
	if err != nil {
		s.cpus.runs[e.id] = r
		return err
	}
	next.set = sets[e.id]
	s.moveCPUs(ctx, e.id, sets, host)
	return nil
}

func (s *Service) setLimits(ctx context.Context, id, typ string, l driver.Limits) error {
	d, err := s.driverFor(typ)
	if err != nil {
		return err
	}
	limiter, ok := d.(driver.Limiter)
	if !ok {
		return errs.Unsupported("limits of a running instance cannot be changed: stop it first")
	}
	return limiter.SetLimits(ctx, id, l)
}

// moveCPUs tells the others where they run now. One that cannot be told stays where it is: it is just ending, mostly.
func (s *Service) moveCPUs(ctx context.Context, but string, sets map[string][]int, host config.Host) {
	for _, id := range sorted(sets) {
		r := s.cpus.runs[id]
		if id == but || r.driver == nil || slices.Equal(r.set, sets[id]) {
			continue
		}
		l, err := config.Limits(r.cfg, sets[id], host)
		if err == nil {
			err = r.driver.SetLimits(ctx, id, l)
		}
		if err != nil {
			s.log.Debug("instance is not moved to other CPUs", "id", id, "err", err)
			continue
		}
		r.set = sets[id]
	}
}

// releaseCPUs forgets an instance that ended, and lets others move to where it was.
func (s *Service) releaseCPUs(ctx context.Context, id string) {
	s.cpus.mu.Lock()
	defer s.cpus.mu.Unlock()
	r := s.cpus.runs[id]
	if r == nil {
		return
	}
	delete(s.cpus.runs, id)
	if len(r.set) == 0 {
		return
	}
	host, err := s.d.Machine()
	if err != nil {
		s.log.Debug("CPUs are not shared out anew", "err", err)
		return
	}
	s.moveCPUs(ctx, "", s.cpus.balance("", host.CPUs), host)
}

// adoptCPUs takes over an instance that ran while there was no daemon, on the CPUs that it has.
func (s *Service) adoptCPUs(e *entry, d driver.Driver, cpus string) {
	r := &cpuRun{}
	if item, err := s.store.get(e.name()); err == nil {
		if x, err := s.expand(e.name().project, item.Value); err == nil {
			r.cfg = x.cfg
		}
	}
	if r.cfg["limits.cpu"] != "" && cpus != "" {
		r.set, _ = config.ParseCPUSet(cpus)
	}
	r.driver, _ = d.(driver.Limiter)
	s.cpus.mu.Lock()
	defer s.cpus.mu.Unlock()
	s.cpus.put(e.id, r)
}
