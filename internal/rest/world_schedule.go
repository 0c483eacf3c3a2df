package rest

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/world/scheduler"
	"github.com/shoal-project/shoal/world/watch"
)

func scheduleEndpoints() []endpoint {
	return []endpoint{
		{path: "/1.0/world/scheduler", methods: methods{"GET": schedulesGet}},
		{path: "/1.0/world/scheduler/{schedule}", methods: methods{"GET": scheduleGet, "PUT": schedulePut, "DELETE": scheduleDelete}},
		{path: "/1.0/world/scheduler/{schedule}/hosts", methods: methods{"POST": scheduleJoin}},
		{path: "/1.0/world/scheduler/{schedule}/hosts/{host}", methods: methods{"DELETE": scheduleLeave}},
	}
}

func schedule(s scheduler.Schedule) api.WorldSchedule {
	out := api.WorldSchedule{Name: s.Name, SpecRevision: s.SpecRevision, Hosts: s.Result.Hosts, Written: s.Result.Written,
		Computer: s.Computer, Candidates: []api.WorldScheduleCandidate{}, Errors: s.Broken}
	if s.Spec != nil {
		out.Spec = &api.WorldScheduleSpec{Strategy: string(s.Spec.Strategy), Max: s.Spec.Max, Hosts: s.Spec.Hosts, Exclude: s.Spec.Exclude,
			Labels: s.Spec.Labels, Domain: s.Spec.Domain, Margin: s.Spec.Margin}
	}
	for _, c := range s.Standings() {
		out.Candidates = append(out.Candidates, api.WorldScheduleCandidate{Host: c.Host, Chosen: c.Chosen, Reason: c.Reason, Draining: c.Draining,
			Persist: c.Persist, WorldScheduleHost: api.WorldScheduleHost(c.Facts)})
	}
	return out
}

func schedulesGet(r *request) response {
	return r.live(r.svc.Scheduler.WatchAll, func(ctx context.Context) (any, error) {
		all, err := r.svc.Scheduler.List(ctx)
		out := make([]api.WorldSchedule, 0, len(all))
		for _, s := range all {
			out = append(out, schedule(s))
		}
		return out, err
	})
}

func scheduleGet(r *request) response {
	name := r.PathValue("schedule")
	watching, _ := r.watching() // a bad value is refused by live
	return r.live(func(ctx context.Context) (*watch.Watch, error) { return r.svc.Scheduler.Watch(ctx, name) },
		func(ctx context.Context) (any, error) {
			s, err := r.svc.Scheduler.Get(ctx, name)
			if watching && errs.Is(err, errs.NotFoundClass) {
				return nil, nil // a watch waits for it
			}
			return schedule(s), err
		})
}

func schedulePut(r *request) response {
	var put api.WorldSchedulePut
	if err := r.decode(&put); err != nil {
		return fail(err)
	}
	was := int64(scheduler.AnyRevision)
	if put.Revision != nil {
		if was = *put.Revision; was < 0 {
			return fail(errs.Invalid("Invalid revision %d: allowed are revisions of specifications, and 0 for a schedule that does not exist", was))
		}
	}
	_, err := r.svc.Scheduler.Configure(r.Context(), r.PathValue("schedule"), scheduler.Spec{Strategy: scheduler.Strategy(put.Strategy), Max: put.Max,
		Hosts: put.Hosts, Exclude: put.Exclude, Labels: put.Labels, Domain: put.Domain, Margin: put.Margin}, was)
	return done(err)
}

func scheduleDelete(r *request) response {
	force := false
	if v := r.query.Get("force"); v != "" {
		var err error
		if force, err = strconv.ParseBool(v); err != nil {
			return fail(errs.Invalid("Invalid force %q: allowed are true and false", v))
		}
	}
	return done(r.svc.Scheduler.Delete(r.Context(), r.PathValue("schedule"), force))
}

// scheduleJoin makes this machine a candidate that persists: what a user said holds over restarts of the daemon, until he takes it back.
func scheduleJoin(r *request) response {
	var host api.WorldScheduleHost
	if err := r.decode(&host); err != nil {
		return fail(err)
	}
	name := r.PathValue("schedule")
	if _, err := r.svc.Scheduler.Get(r.Context(), name); err != nil {
		return fail(err)
	}
	p, err := r.svc.Scheduler.Join(r.Context(), name, scheduler.JoinOptions{Facts: scheduler.Facts(host), Persist: true})
	if err != nil {
		return fail(err)
	}
	return done(p.Close(r.Context()))
}

// scheduleLeave withdraws this machine, which drains, or removes another.
func scheduleLeave(r *request) response {
	name, host := r.PathValue("schedule"), r.PathValue("host")
	if host != r.svc.Scheduler.Host() {
		return done(r.svc.Scheduler.Remove(r.Context(), name, host))
	}
	s, err := r.svc.Scheduler.Get(r.Context(), name)
	if err != nil {
		return fail(err)
	}
	i := slices.IndexFunc(s.Candidates, func(c scheduler.Candidate) bool { return c.Host == host })
	if i < 0 {
		return fail(errs.NotFound("host %q does not take part in schedule %q", host, name))
	}
	p, err := r.svc.Scheduler.Join(r.Context(), name, scheduler.JoinOptions{Facts: s.Candidates[i].Facts, Persist: true})
	if err != nil {
		return fail(err)
	}
	if err := p.Withdraw(r.Context()); err != nil {
		return done(errors.Join(err, p.Close(context.WithoutCancel(r.Context()))))
	}
	return done(nil)
}
