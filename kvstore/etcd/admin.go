package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/shoal-project/shoal/kvstore"
)

var (
	_ kvstore.Users     = (*Backend)(nil)
	_ kvstore.Endpoints = (*Backend)(nil)
)

// EnforceUser implements kvstore.Users.
func (b *Backend) EnforceUser(ctx context.Context, name string, roles []string) error {
	ctx, done, err := b.call(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = b.cl.UserAddWithOptions(ctx, name, "", &clientv3.UserAddOptions{NoPassword: true})
	if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrUserAlreadyExist) {
		return fmt.Errorf("add the database user %q: %w", name, b.failed(err))
	}
	u, err := b.cl.UserGet(ctx, name)
	if err != nil {
		return fmt.Errorf("look at the database user %q: %w", name, b.failed(err))
	}
	for _, r := range roles {
		if slices.Contains(u.Roles, r) {
			continue
		}
		if _, err := b.cl.UserGrantRole(ctx, name, r); err != nil {
			if errors.Is(rpctypes.Error(err), rpctypes.ErrRoleNotFound) {
				err = fmt.Errorf("%w: %w", kvstore.ErrNotFound, err)
			}
			return fmt.Errorf("grant role %q to the database user %q: %w", r, name, b.failed(err))
		}
	}
	for _, r := range u.Roles {
		if slices.Contains(roles, r) {
			continue
		}
		if _, err := b.cl.UserRevokeRole(ctx, name, r); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrRoleNotGranted) {
			return fmt.Errorf("take role %q from the database user %q: %w", r, name, b.failed(err))
		}
	}
	return nil
}

// EnforceNoUser implements kvstore.Users.
func (b *Backend) EnforceNoUser(ctx context.Context, name string) error {
	ctx, done, err := b.call(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = b.cl.UserDelete(ctx, name)
	if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrUserNotFound) {
		return fmt.Errorf("delete the database user %q: %w", name, b.failed(err))
	}
	return nil
}

// Endpoints implements kvstore.Endpoints; all servers are asked at once. The member in this process has none: it tells more itself.
func (b *Backend) Endpoints(ctx context.Context) []kvstore.Endpoint {
	addrs := b.cl.Endpoints()
	out := make([]kvstore.Endpoint, len(addrs))
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i, a := range addrs {
		wg.Go(func() {
			out[i].Address = a
			s, err := b.cl.Status(ctx, a)
			if err != nil {
				out[i].Err = b.failed(err)
				return
			}
			out[i].Version, out[i].Leader, out[i].Learner, out[i].Size = s.Version, s.Leader == s.Header.MemberId, s.IsLearner, s.DbSize
		})
	}
	wg.Wait()
	return out
}
