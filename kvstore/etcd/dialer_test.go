package etcd_test

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/etcd"
)

// TestDialer has connections made by somebody else, to both kinds of addresses.
func TestDialer(t *testing.T) {
	socket := t.TempDir() + "/etcd:0"
	_, addrs := servers(t, 1, func(c *embed.Config) {
		c.ListenClientUrls = append(c.ListenClientUrls, url.URL{Scheme: "unix", Path: socket})
	})
	for end, want := range map[string]string{addrs[0]: "tcp " + addrs[0][len("http://"):], "unix://" + socket: "unix " + socket} {
		var mu sync.Mutex
		asked := map[string]bool{}
		b, err := etcd.Dial(etcd.Config{Endpoints: []string{end}, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			mu.Lock()
			asked[network+" "+address] = true
			mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Txn(t.Context(), kvstore.Txn{Then: []kvstore.Op{kvstore.Put("/a", nil)}}); err != nil {
			t.Error(err)
		}
		b.Close()
		if len(asked) != 1 || !asked[want] {
			t.Errorf("asked for %v, want %s", asked, want)
		}
	}
	if _, err := etcd.Dial(etcd.Config{Endpoints: []string{"unix://" + socket}}, nil); !errs.Is(err, errs.InvalidInput) {
		t.Errorf("a socket without somebody who dials it: %v", err)
	}
}
