package kvstore

import "context"

type urgentKey struct{}

// Urgent marks the calls made with the returned context as those that never wait behind others at a client's limits: of locks, leases
// and health. The locks and pools of this package use it by themselves.
func Urgent(ctx context.Context) context.Context {
	if isUrgent(ctx) {
		return ctx
	}
	return context.WithValue(ctx, urgentKey{}, true)
}

func isUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) != nil }
