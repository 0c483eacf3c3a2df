package instance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/identity/policy"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/op"
)

// plan is a request that was found good: what Create will do.
type plan struct {
	ref   ref
	rec   record
	root  config.Disk
	start bool
	from  *original // of a copy
}

// Create validates the request and returns the operation that makes the instance ("Creating instance"). All that
// can be known beforehand is refused here: names, keys, devices, an unknown image, a taken name (Exists).
func (s *Service) Create(ctx context.Context, project api.ProjectName, req api.InstancesPost) (op.Spec, error) {
	if req.Source.Type == "copy" && req.Source.Refresh {
		return s.refresh(project, req)
	}
	p, err := s.plan(ctx, project, req)
	if err != nil {
		return op.Spec{}, err
	}
	spec := instanceOp("Creating instance", p.ref)
	spec.Resources["containers"] = []string{strings.Replace(instanceURL(p.ref), "/instances/", "/containers/", 1)}
	spec.Cancellable = p.from != nil
	spec.Run = func(ctx context.Context, h op.Handle) error {
		err := error(nil)
		if p.from == nil {
			err = s.create(ctx, p, h)
		} else {
			err = p.from.e.exclusive(ctx, actCopy, func(ctx context.Context) error { return s.create(ctx, p, h) })
		}
		if err != nil {
			return fmt.Errorf("create instance %q: %w", p.ref.name, err)
		}
		if p.start {
			return s.power(ctx, p.ref, api.InstanceStatePut{Action: "start"})
		}
		return nil
	}
	return spec, nil
}

func (s *Service) plan(ctx context.Context, project api.ProjectName, req api.InstancesPost) (*plan, error) {
	if req.Name == "" {
		req.Name = s.freeName(project)
	}
	name, err := api.ParseInstanceName(req.Name)
	if err != nil {
		return nil, err
	}
	p := &plan{ref: ref{project, name}, start: req.Start}
	if s.entries.get(p.ref) != nil {
		return nil, errs.Exists("Instance %q already exists", name)
	}
	if req.Source.Type == "copy" {
		if p.from, err = s.original(project, req.Source); err == nil {
			err = p.from.overlay(&req)
		}
		if err != nil {
			return nil, err
		}
	}
	rec := record{
		ID: newUUID(), Type: req.Type, Architecture: req.Architecture, Description: req.Description, Ephemeral: req.Ephemeral,
		Config: config.Clean(req.Config), Devices: config.CloneDevices(req.Devices), Profiles: slices.Clone(req.Profiles),
		Location: s.d.Member, Phase: creating,
	}
	if rec.Type == "" {
		rec.Type = api.TypeContainer
	}
	if _, err := s.driverFor(rec.Type); err != nil {
		return nil, err
	}
	if req.Stateful || req.Restore != "" || req.InstanceType != "" {
		return nil, errs.Unsupported("stateful, restore and instance_type are not supported yet at creation")
	}
	if err := config.Check(rec.Config, rec.Type, false); err != nil {
		return nil, err
	}
	var image *api.Image
	if p.from == nil {
		if image, err = s.resolveSource(ctx, project, req.Source); err != nil {
			return nil, err
		}
	}
	if image != nil {
		if err := rec.fromImage(image); err != nil {
			return nil, err
		}
	}
	if rec.Profiles == nil {
		rec.Profiles = []string{api.DefaultProfile.String()}
	}
	if rec.Architecture == "" {
		rec.Architecture = hostArchitecture()
	}
	if rec.Architecture != hostArchitecture() {
		return nil, errs.Invalid("Requested architecture %q isn't supported by this host (%s)", rec.Architecture, hostArchitecture())
	}
	exp, err := s.checkExpanded(project, rec)
	if err != nil {
		return nil, err
	}
	if _, err := s.gate(p.ref, nil, &rec); err != nil {
		return nil, err
	}
	p.root = *exp.devs.Root
	rec.Pool = p.root.Pool.String()
	rec.Config["volatile.uuid"] = rec.ID
	rec.Config["volatile.cloud-init.instance-id"] = newUUID()
	switch {
	case image != nil:
		rec.Config["volatile.apply_template"] = string(actCreate)
	case p.from != nil && p.from.rec.Image != "":
		rec.Image = p.from.rec.Image
		rec.Config["volatile.base_image"] = rec.Image
		rec.Config["volatile.apply_template"] = string(actCopy)
	}
	p.rec = rec
	return p, nil
}

// fromImage takes over what the image says.
func (r *record) fromImage(image *api.Image) error {
	fp, err := api.ParseFingerprint(image.Fingerprint)
	if err != nil {
		return err
	}
	if image.Type != "" && image.Type != r.Type {
		return errs.Invalid("Requested image's type %q doesn't match instance type %q", image.Type, r.Type)
	}
	for k, v := range image.Properties {
		if _, set := r.Config["image."+k]; !set && v != "" {
			r.Config["image."+k] = v
		}
	}
	// Properties are data of whoever made the image.
	if err := config.Check(r.Config, r.Type, false); err != nil {
		return fmt.Errorf("properties of the image: %w", err)
	}
	r.Image = fp.String()
	r.Config["volatile.base_image"] = r.Image
	if r.Architecture == "" {
		r.Architecture = image.Architecture
	}
	if r.Profiles == nil && len(image.Profiles) > 0 {
		r.Profiles = slices.Clone(image.Profiles)
	}
	return nil
}

func (s *Service) resolveSource(ctx context.Context, project api.ProjectName, src api.InstanceSource) (*api.Image, error) {
	switch src.Type {
	case "none":
		return nil, nil
	case "image":
	case "migration":
		return nil, errs.Unsupported("source type %q is not supported yet; image, copy and none are", src.Type)
	default:
		return nil, errs.Invalid("Unknown source type %s", src.Type)
	}
	ref := src.Fingerprint
	switch {
	case src.Server != "":
		return nil, errs.Unsupported("images of other servers are not supported yet: import the image first")
	case ref != "":
		if _, err := api.ParseFingerprintPrefix(ref); err != nil {
			return nil, err
		}
	case src.Alias != "":
		alias, err := api.ParseAliasName(src.Alias)
		if err != nil {
			return nil, err
		}
		ref = alias.String()
	case len(src.Properties) > 0:
		return nil, errs.Unsupported("choosing an image by properties is not supported yet; alias and fingerprint are")
	default:
		return nil, errs.Invalid("Must specify one of alias, fingerprint or properties for init from image")
	}
	holder, err := s.d.Projects.Effective(project, policy.Images)
	if err != nil {
		return nil, err
	}
	return s.d.Images.Resolve(ctx, holder, ref)
}

// create makes the instance. Whatever goes wrong after the record is written is undone by destroy, here or at the next start.
func (s *Service) create(ctx context.Context, p *plan, op op.Handle) error {
	e := s.entries.add(p.ref, p.rec.ID)
	if e == nil {
		return errs.Exists("Instance %q already exists", p.ref.name)
	}
	hctx, h, _ := e.take(ctx, actCreate, false)
	return e.under(hctx, h, func(ctx context.Context) error {
		took := newSteps()
		if err := s.claim(ctx, p); err != nil {
			s.entries.drop(p.ref, e)
			return err
		}
		took.done("record")
		err := s.build(ctx, p, took, op)
		if err == nil {
			_, err = s.store.modify(ctx, p.ref, func(rec *record) error { rec.Phase = ready; return nil })
		}
		if err != nil {
			ctx, cancel := detached(ctx)
			defer cancel()
			if undo := s.destroy(ctx, e); undo != nil {
				s.log.Error("half-made instance is removed at the next start", "instance", p.ref.String(), "err", undo)
			}
			return err
		}
		took.done("ready")
		took.log(s.log, "instance created", p.ref)
		s.event(ctx, p.ref, "instance-created", map[string]any{"type": p.rec.Type, "storage-pool": p.rec.Pool})
		return nil
	})
}

// claim writes the record with an id block and hardware addresses; it tries again when another instance was faster.
func (s *Service) claim(ctx context.Context, p *plan) error {
	p.rec.CreatedAt = s.d.Clock.Now()
	for range 1000 {
		rec := p.rec.clone()
		if err := s.fillVolatile(p.ref.project, &rec); err != nil {
			return err
		}
		err := s.store.create(ctx, p.ref, rec)
		if err == nil {
			p.rec = rec
			return nil
		}
		if !faster(err) || ctx.Err() != nil {
			return fmt.Errorf("write the record: %w", err)
		}
		if _, taken := s.store.get(p.ref); taken == nil {
			return errs.Exists("Instance %q already exists", p.ref.name)
		}
	}
	return errs.Busy("no free id block or hardware address could be claimed")
}

// build does the effects of a creation, all at once.
func (s *Service) build(ctx context.Context, p *plan, took *steps, h op.Handle) error {
	x, err := s.expand(p.ref.project, p.rec)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.ensureDirs(p.rec.ID, p.ref) })
	for _, n := range x.devs.NICs {
		g.Go(func() error { return s.reserve(ctx, nicOf(n, p.rec, p.ref, 0)) })
	}
	g.Go(func() error {
		if p.from != nil {
			return s.fill(ctx, p, h)
		}
		err := s.d.Volumes.CreateRoot(ctx, p.root.Pool, p.ref.project, p.ref.name, p.root.Size)
		if err != nil {
			return fmt.Errorf("create the root disk in pool %q: %w", p.root.Pool, err)
		}
		took.done("root")
		return nil
	})
	if p.rec.Image != "" {
		g.Go(func() error {
			fp, err := api.ParseFingerprint(p.rec.Image)
			if err == nil {
				err = s.d.Images.Hold(ctx, fp, holder(p.rec.ID))
			}
			took.done("hold")
			if err == nil {
				_, err = s.d.Images.Mount(ctx, fp) // so that the start finds it ready
			}
			took.done("mount")
			return err
		})
	}
	return g.Wait()
}

func holder(id string) string { return "instance/" + id }

func isPrivileged(x expanded) bool { return config.IsTrue(x.cfg["security.privileged"]) }

// idmap is the id block that a start uses. A block that was claimed stays claimed while the instance is privileged:
// it may still run in it.
func (r record) idmap(x expanded) driver.IDMap {
	if isPrivileged(x) {
		return driver.IDMap{}
	}
	return r.IDMap
}

// fillVolatile makes up what a record still lacks: the id block, and a hardware address and an interface name for each NIC.
// It does not write.
func (s *Service) fillVolatile(project api.ProjectName, rec *record) error {
	exp, err := s.expand(project, *rec)
	if err != nil {
		return err
	}
	if !isPrivileged(exp) && rec.IDMap.Size == 0 {
		if s.idsErr != nil {
			return s.idsErr
		}
		if rec.IDMap, err = s.store.freeBlock(s.ids); err != nil {
			return err
		}
	}
	rec.Config["volatile.idmap.base"] = fmt.Sprint(rec.idmap(exp).Base)
	rec.Config["volatile.idmap.next"] = idmapJSON(rec.idmap(exp))
	if rec.Config["volatile.idmap.current"] == "" {
		rec.Config["volatile.idmap.current"] = rec.Config["volatile.idmap.next"]
	}
	names := map[string]bool{}
	for _, n := range exp.devs.NICs {
		names[n.Name] = true
		names[rec.Config[volatileKey(n, "name")]] = true
	}
	keep := map[string]bool{}
	for _, n := range exp.devs.NICs {
		keep[n.Device.String()] = true
		setOr(rec.Config, volatileKey(n, "hwaddr"), n.HWAddr, newHWAddr)
		setOr(rec.Config, volatileKey(n, "name"), n.Name, func() string {
			for i := 0; ; i++ {
				if name := fmt.Sprintf("eth%d", i); !names[name] {
					names[name] = true
					return name
				}
			}
		})
	}
	maps.DeleteFunc(rec.Config, func(k, _ string) bool {
		dev, is := volatileDevice(k)
		return is && !keep[dev]
	})
	return nil
}

// setOr keeps a made-up value only where the configuration does not say one, as LXD does.
func setOr(cfg api.Config, key, configured string, makeUp func() string) {
	switch {
	case configured != "":
		delete(cfg, key)
	case cfg[key] == "":
		cfg[key] = makeUp()
	}
}

func volatileKey(n config.NIC, what string) string {
	return "volatile." + n.Device.String() + "." + what
}

// volatileDevice returns the device that a key such as volatile.eth0.hwaddr belongs to.
func volatileDevice(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, "volatile.")
	for _, suffix := range []string{".hwaddr", ".name", ".host_name"} {
		if dev, is := strings.CutSuffix(rest, suffix); ok && is {
			return dev, true
		}
	}
	return "", false
}
