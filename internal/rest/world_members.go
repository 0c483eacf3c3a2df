package rest

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/world"
)

func worldMachinesGet(r *request) response {
	return r.live(r.svc.World.WatchMachines, func(ctx context.Context) (any, error) {
		all, err := r.svc.World.Machines(ctx)
		out := make([]api.WorldMachine, 0, len(all))
		for _, m := range all {
			out = append(out, api.WorldMachine{Name: m.Name, URLs: some(m.URLs), Key: m.Key, Grace: int(m.Grace / time.Second), Up: m.Up, Hidden: m.Hidden})
		}
		return out, err
	})
}

func worldMachineDelete(r *request) response {
	name := r.PathValue("name")
	if err := r.svc.World.Forget(r.Context(), name); err != nil {
		return fail(err)
	}
	r.lifecycle("world-machine-deleted", "/1.0/world/machines/"+name, nil)
	return empty()
}

func worldMember(m world.Member) api.WorldMember {
	return api.WorldMember{ID: fmt.Sprintf("%x", m.ID), Name: m.Name, PeerURLs: some(m.PeerURLs), ClientURLs: some(m.ClientURLs), Learner: m.Learner, Leader: m.Leader}
}

func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func worldMembers(ms []world.Member) []api.WorldMember {
	out := make([]api.WorldMember, 0, len(ms))
	for _, m := range ms {
		out = append(out, worldMember(m))
	}
	return out
}

// worldMembersGet lists the members, or with ?watch=true sends api.WorldMemberEvents.
func worldMembersGet(r *request) response {
	watching, err := r.watching()
	if err != nil {
		return fail(err)
	}
	ms, err := r.svc.World.Members(r.Context())
	if err != nil {
		return fail(err)
	}
	if !watching {
		return reply(worldMembers(ms))
	}
	ctx, cancel := context.WithCancel(r.Context())
	events, err := r.svc.World.WatchMembers(ctx)
	if err != nil {
		cancel()
		return fail(err)
	}
	return stream(func(rw http.ResponseWriter, _ *http.Request) {
		defer func() {
			cancel()
			for range events { // until its end
			}
		}()
		out := newLines(rw)
		t := time.NewTicker(aliveEvery)
		defer t.Stop()
		for {
			var err error
			select {
			case e, ok := <-events:
				if !ok {
					return
				}
				err = out.send(memberEvent(r.srv.d.Clock.Now(), e))
			case <-t.C:
				err = out.alive()
			}
			if err != nil {
				return // the client is gone
			}
		}
	})
}

func memberEvent(now time.Time, e world.MemberEvent) api.WorldMemberEvent {
	out := api.WorldMemberEvent{Time: now, Change: string(e.Change), Members: worldMembers(e.Members)}
	if e.Change != "" {
		m := worldMember(e.Member)
		out.Member = &m
	}
	if e.Err != nil {
		out.Error = e.Err.Error()
	}
	return out
}
