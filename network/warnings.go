package network

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoal-project/shoal/api"
)

// warning is something that an administrator should look at and that holds still.
type warning struct {
	msg         string
	first, last time.Time
	count       int
}

// warn notes a message of a kind; an empty one says that all is well again.
func (s *Service) warn(kind, msg string) {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	if msg == "" {
		delete(s.warnings, kind)
		return
	}
	w := s.warnings[kind]
	now := s.d.Clock.Now()
	if w.msg != msg {
		s.d.Logger.Warn("network warning", "kind", kind, "err", msg)
		w = warning{first: now}
	}
	w.msg, w.last = msg, now
	w.count++
	s.warnings[kind] = w
}

// Warnings returns what keeps networks from working as they should, as the API lists it: a packet filter that
// could not be written ("firewall"), somebody else's that drops what we forward ("forward"), and networks that are not up. The same
// trouble has the same UUID each time. Nothing is kept over restarts: what is wrong is seen again.
func (s *Service) Warnings() []api.Warning {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	all := maps.Clone(s.warnings)
	for name, err := range s.status {
		if err != nil {
			now := s.d.Clock.Now()
			all["network "+name] = warning{msg: fmt.Sprintf("network %q is not up: %v", name, err), first: now, last: now, count: 1}
		}
	}
	out := []api.Warning{}
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		w := all[kind]
		h := sha256.Sum256([]byte(s.d.ID + "/" + kind + "/" + w.msg))
		out = append(out, api.Warning{
			UUID: fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16]), Location: "none",
			Type: "Network: " + kind, Count: w.count, FirstSeenAt: w.first, LastSeenAt: w.last, LastMessage: w.msg, Severity: "moderate", Status: "new",
		})
	}
	return out
}
