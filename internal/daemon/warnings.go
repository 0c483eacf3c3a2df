package daemon

import (
	"github.com/google/uuid"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/lifecycle"
)

// warnings lists what an administrator should look at now. They are made from the present state, not stored: a warning is
// gone when its cause is, and its UUID follows from its text, so that it stays the same while the cause does.
func (d *daemon) warnings() []api.Warning {
	out := append([]api.Warning{}, d.rooms.networks.Warnings()...)
	messages := failing(d.group.States())
	if w := d.networkWarning(); w != "" {
		messages = append(messages, w)
	}
	for _, message := range messages {
		now := d.clock.Now()
		id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("shoal:"+message))
		out = append(out, api.Warning{UUID: id.String(), Location: "none", Type: "Service failed", Count: 1, FirstSeenAt: now,
			LastSeenAt: now, LastMessage: message, Severity: "moderate", Status: "new"})
	}
	return out
}

// failing describes the services that failed and have not run calmly since.
func failing(states []lifecycle.State) []string {
	var out []string
	for _, s := range states {
		if s.Err != nil {
			out = append(out, "service "+s.Name+" failed: "+s.Err.Error())
		}
	}
	return out
}
