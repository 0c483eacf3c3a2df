package instance

import (
	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/errs"
)

// expanded is a record's effective configuration.
type expanded struct {
	cfg  api.Config
	raw  api.Devices
	devs config.Devices
}

// expand merges profiles and the record's own; errors are those of what was stored.
func (s *Service) expand(project api.ProjectName, rec record) (expanded, error) {
	profiles, err := s.profilesOf(project, rec.Profiles)
	if err != nil {
		return expanded{}, err
	}
	return expandWith(profiles, rec)
}

func expandWith(profiles []api.ProfilePut, rec record) (expanded, error) {
	var x expanded
	var err error
	x.cfg, x.raw = config.Expand(profiles, rec.Config, rec.Devices)
	x.devs, err = config.ParseDevices(x.raw)
	return x, err
}

// profilesOf returns profiles by name, from where the project has them; their content is shared.
func (s *Service) profilesOf(project api.ProjectName, names []string) ([]api.ProfilePut, error) {
	project, err := s.d.Projects.Effective(project, policy.Profiles)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var out []api.ProfilePut
	for _, name := range names {
		if seen[name] {
			return nil, errs.Invalid("Profile %q is listed more than once", name)
		}
		seen[name] = true
		p, err := s.d.Profiles.Peek(project, name)
		if errs.IsNotFound(err) {
			return nil, errs.Invalid("Requested profile %q doesn't exist", name)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// checkExpanded validates a record as a whole: what it refers to must exist.
func (s *Service) checkExpanded(project api.ProjectName, rec record) (expanded, error) {
	x, err := s.expand(project, rec)
	if err != nil {
		return x, err
	}
	return x, s.checkEffective(project, x)
}

func (s *Service) checkEffective(project api.ProjectName, x expanded) error {
	if err := x.devs.NeedRoot(); err != nil {
		return err
	}
	if err := s.d.Volumes.PoolExists(x.devs.Root.Pool); err != nil {
		return err
	}
	return s.checkNetworks(project, x.devs)
}

func (s *Service) checkNetworks(project api.ProjectName, devs config.Devices) error {
	project, err := s.d.Projects.Effective(project, policy.Networks)
	if err != nil {
		return err
	}
	for _, n := range devs.NICs {
		if err := s.d.NICs.NetworkExists(project, n.Network); err != nil {
			if errs.IsNotFound(err) {
				return errs.Invalid("device %q: Network %q not found; only managed networks are supported", n.Device, n.Network)
			}
			return err
		}
	}
	return nil
}
