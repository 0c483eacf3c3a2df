package etcd

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// Whether a call may be repeated depends on the class that its error gets.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		in   error
		is   error // sentinel
		want errs.Class
	}{
		{rpctypes.ErrGRPCNoLeader, kvstore.ErrNoQuorum, errs.UnavailableClass},
		{rpctypes.ErrLeaderChanged, kvstore.ErrNoQuorum, errs.UnavailableClass},
		{rpctypes.ErrGRPCStopped, kvstore.ErrNoQuorum, errs.UnavailableClass},
		{status.Error(codes.Unknown, "raft: stopped"), kvstore.ErrNoQuorum, errs.UnavailableClass},
		{status.Error(codes.Unavailable, "connection refused"), kvstore.ErrNoQuorum, errs.UnavailableClass},
		{status.Error(codes.DeadlineExceeded, "late"), nil, errs.UnavailableClass},
		{context.Canceled, context.Canceled, errs.UnavailableClass},
		{rpctypes.ErrGRPCNoSpace, kvstore.ErrNoSpace, errs.NoSpaceClass},
		{rpctypes.ErrGRPCRequestTooLarge, kvstore.ErrTooLarge, errs.TooLargeClass},
		{rpctypes.ErrGRPCLeaseNotFound, kvstore.ErrLeaseExpired, errs.ClassOf(kvstore.ErrLeaseExpired)},
		{rpctypes.ErrGRPCCompacted, kvstore.ErrCompacted, errs.ClassOf(kvstore.ErrCompacted)},
		{status.Error(codes.Unknown, "something else"), nil, errs.ClassOf(errors.New("something else"))},
	} {
		err := (&Backend{}).failed(tt.in)
		if errs.ClassOf(err) != tt.want || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%v: class %v, want %v; %v", tt.in, errs.ClassOf(err), tt.want, err)
		}
	}
	if (&Backend{}).failed(nil) != nil {
		t.Error("no error became one")
	}
}
