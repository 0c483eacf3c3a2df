package elastic_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/elastic/pki"
)

// FuzzOrders sends a machine that is in no cluster whatever a member could send: it refuses, and stays what it is.
func FuzzOrders(f *testing.F) {
	ca, err := pki.NewCA("test", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	certs := pki.In(dir)
	cert, key, err := ca.Issue(pki.Member, "a", time.Now(), time.Hour)
	if err == nil {
		err = certs.Write(ca.CertPEM(), cert, key)
	}
	if err != nil {
		f.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	n, err := elastic.Open(f.Context(), elastic.NodeConfig{Config: elastic.Config{Name: "a", Dir: filepath.Join(dir, "db")}, Listener: l, Address: l.Addr().String(), Certs: certs})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			f.Error(err)
		}
	})
	tr := &http.Transport{TLSClientConfig: certs.Dial("http/1.1")}
	f.Cleanup(tr.CloseIdleConnections)
	web := &http.Client{Transport: tr}
	orders := []string{"ping", "start", "stop", "join", "about"}
	for i := range orders {
		f.Add(i, []byte(`{"cluster":"1","epoch":9,"members":"a=https://127.0.0.1:1","name":"a","id":"1","address":"x:1","forget":true,"view":{"members":[{"name":"a","role":"voter"}]}}`))
		f.Add(i, []byte(`[`))
		f.Add(i, []byte(nil))
	}
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		order := orders[uint(which)%uint(len(orders))]
		res, err := web.Post("https://"+l.Addr().String()+"/internal/elastic/"+order, "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode >= 500 || res.StatusCode < 400 && order != "about" {
			t.Errorf("%s: %s", order, res.Status)
		}
		if s := n.Status(); s.Running || s.ID != "" || s.Cluster != "" {
			t.Errorf("after %s %q: %+v", order, body, s)
		}
	})
}
