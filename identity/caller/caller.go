// Package caller carries who made a request from the socket to the rooms that record it: log lines and
// lifecycle events name the caller, also those that an operation writes long after the request has ended.
package caller

import (
	"context"

	"github.com/shoal-project/shoal/api"
)

// The protocols by which somebody can be known.
const (
	Unix    = "unix"
	TLS     = "tls"
	Cluster = "cluster"
)

// Caller is the other end of a request.
type Caller struct {
	Username string // of the host's user database for Unix, the certificate's fingerprint for TLS
	Protocol string
	Address  string // "@" for Unix
	UID      uint32 // Unix only
	PID      int32  // Unix only; 0 when unknown
}

type key struct{}

// With returns a context that remembers c. context.WithoutCancel keeps it.
func With(ctx context.Context, c Caller) context.Context { return context.WithValue(ctx, key{}, c) }

// From returns the caller and whether there is one; what the daemon does by itself has none.
func From(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(key{}).(Caller)
	return c, ok
}

// Requestor returns the caller as lifecycle events show it, nil when there is none.
func Requestor(ctx context.Context) *api.EventRequestor {
	c, ok := From(ctx)
	if !ok {
		return nil
	}
	return &api.EventRequestor{Username: c.Username, Protocol: c.Protocol, Address: c.Address}
}
