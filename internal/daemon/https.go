package daemon

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/cluster/config"
	"github.com/shoal-project/shoal/identity/trust"
	"github.com/shoal-project/shoal/internal/fsroot"
	"github.com/shoal-project/shoal/internal/rest"
)

// listenRetry is how long the daemon waits before it tries again to listen on an address that the host does not have yet.
const listenRetry = 5 * time.Second

// httpsAPI is the API on TLS.
type httpsAPI struct {
	pair   *tls.Certificate
	change sync.Mutex // held while the address changes, until the configuration says so
	srv    atomic.Pointer[rest.HTTPS]
	why    atomic.Pointer[string] // it does not listen where it should
}

func (h *httpsAPI) failed(err error) {
	var why *string
	if err != nil {
		s := err.Error()
		why = &s
	}
	h.why.Store(why)
}

// keypair reads the server's certificate, which the first start makes.
func (d *daemon) keypair() (*tls.Certificate, error) {
	root, err := fsroot.Open(d.cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	host, err := os.Hostname()
	if err != nil {
		host = "shoal"
	}
	return trust.ServerKeypair(root, host, d.clock.Now())
}

// newTrust makes the trust store.
func (d *daemon) newTrust() (*trust.Service, error) {
	return trust.New(trust.Deps{
		State: d.rooms.db, Clock: d.clock, Logger: d.log, Fingerprint: trust.Fingerprint(d.net.pair.Leaf), Addresses: d.addresses,
		TokenExpiry: d.rooms.config.TokenExpiry, PasswordHash: d.rooms.config.PasswordHash,
		Project: func(p api.ProjectName) error { return d.rooms.projects.Exists(p) },
	})
}

// addresses are host:port of the API, none when it does not listen.
func (d *daemon) addresses() []string {
	if srv := d.net.srv.Load(); srv != nil {
		return srv.Addresses()
	}
	return []string{}
}

// prepareConfig opens a new address before the configuration that names it is written, and goes back when that fails.
func (d *daemon) prepareConfig(ctx context.Context, before, after map[string]string) (func(bool), error) {
	d.net.change.Lock()
	undo := func(bool) { d.net.change.Unlock() }
	srv := d.net.srv.Load()
	addr, err := rest.ParseHTTPSAddress(after[config.HTTPSAddress])
	if err == nil && srv != nil {
		err = srv.Listen(ctx, addr)
	}
	if err != nil {
		if before[config.HTTPSAddress] == after[config.HTTPSAddress] {
			return undo, nil // somebody changes another key while the address cannot be had
		}
		undo(false)
		return nil, err
	}
	d.net.failed(nil)
	return func(written bool) {
		defer d.net.change.Unlock()
		if written || srv == nil {
			return
		}
		old, err := rest.ParseHTTPSAddress(before[config.HTTPSAddress])
		if err == nil {
			err = srv.Listen(context.WithoutCancel(ctx), old)
		}
		if d.net.failed(err); err != nil {
			d.log.Error("the API does not listen on its old address any more", "err", err)
		}
	}, nil
}

// startHTTPS serves the API on the configured address. One that cannot be had does not keep the daemon from starting: it is tried again.
func (d *daemon) startHTTPS(ctx context.Context) (func(context.Context) error, error) {
	srv := rest.NewHTTPS(d.rest, d.net.pair)
	stopRevoke := d.rooms.trust.OnRevoke(srv.Revoke)
	d.net.srv.Store(srv)
	done := make(chan struct{})
	if d.listen(ctx) {
		close(done)
	} else {
		go func() {
			defer close(done)
			t := time.NewTicker(listenRetry)
			defer t.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-t.C:
				}
				if d.listen(ctx) {
					return
				}
			}
		}()
	}
	return func(ctx context.Context) error {
		stopRevoke()
		d.net.srv.Store(nil)
		d.rest.CloseStreams()
		err := srv.Close(ctx)
		<-done
		return err
	}, nil
}

// listen opens the configured address and reports whether that went well.
func (d *daemon) listen(ctx context.Context) bool {
	d.net.change.Lock()
	defer d.net.change.Unlock()
	srv := d.net.srv.Load()
	if srv == nil {
		return true
	}
	addr, err := rest.ParseHTTPSAddress(d.rooms.config.HTTPSAddress())
	if err == nil {
		err = srv.Listen(ctx, addr)
	}
	if err != nil && d.net.why.Load() == nil {
		d.log.Error("the API is not served on the network; it is tried again", "err", err, "after", listenRetry)
	}
	if err == nil && addr != "" {
		d.log.Info("the API is served on the network", "address", addr)
	}
	d.net.failed(err)
	return err == nil
}

// networkWarning says why the API is not where it should be, empty when it is.
func (d *daemon) networkWarning() string {
	why := d.net.why.Load()
	if why == nil {
		return ""
	}
	return fmt.Sprintf("the API is not served on %s: %s", d.rooms.config.HTTPSAddress(), *why)
}
