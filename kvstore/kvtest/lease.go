package kvtest

import (
	"errors"
	"time"

	"github.com/shoal-project/shoal/kvstore"
)

func lease(e *env) {
	ctx := e.Context()
	id, err := e.c.Grant(ctx, e.minTTL)
	e.must(err)
	kept, err := e.c.NewLease(ctx, e.minTTL)
	e.must(err)
	defer kept.Release()
	_, _, err = e.c.Update(ctx, "dies", nil, id)
	e.must(err)
	_, _, err = e.c.Update(ctx, "lives", nil, kept.ID())
	e.must(err)
	kv, _, err := e.c.Get(ctx, "lives")
	if err != nil || kv.Lease != kept.ID() {
		e.Errorf("%+v %v", kv, err)
	}
	e.put("dies too", "")
	_, _, err = e.c.Update(ctx, "dies too", nil, id)
	e.must(err)
	_, _, err = e.c.Update(ctx, "freed", nil, id)
	e.must(err)
	e.put("freed", "") // a put without a lease takes the key off it
	for _, k := range []string{"dies", "dies too"} {
		e.wait(k, func() bool { _, ok, err := e.c.Get(ctx, k); e.must(err); return !ok })
	}
	for _, k := range []string{"lives", "freed"} {
		if _, ok, err := e.c.Get(ctx, k); !ok || err != nil {
			e.Errorf("%s: %v %v", k, ok, err)
		}
	}
	if _, err := e.c.KeepAlive(ctx, id); !errors.Is(err, kvstore.ErrLeaseExpired) {
		e.Errorf("keep alive an expired lease: %v", err)
	}
	if _, _, err := e.c.Update(ctx, "x", nil, id); !errors.Is(err, kvstore.ErrLeaseExpired) {
		e.Errorf("put under an expired lease: %v", err)
	}
	select {
	case <-kept.Lost():
		e.Error("a lease that was kept alive is lost")
	default:
	}
}

func revoke(e *env) {
	ctx := e.Context()
	l, err := e.c.NewLease(ctx, e.minTTL)
	e.must(err)
	_, _, err = e.c.Update(ctx, "a", nil, l.ID())
	e.must(err)
	e.must(l.Close(ctx))
	if _, ok, err := e.c.Get(ctx, "a"); ok || err != nil {
		e.Errorf("after revoke: %v %v", ok, err)
	}
	e.must(e.c.Revoke(ctx, l.ID()))
	l, err = e.c.NewLease(ctx, e.minTTL)
	e.must(err)
	defer l.Release()
	e.must(e.c.Revoke(ctx, l.ID())) // by somebody else
	select {
	case <-l.Lost():
	case <-time.After(20 * time.Second):
		e.Error("the holder was not told")
	}
}
