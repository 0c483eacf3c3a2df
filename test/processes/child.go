// Package processes makes machines of processes, for tests that kill, stop and wipe them.
//
// A machine is the test's own binary, run again, with an elastic node whose API does what the test asks: [Main] is the first thing in TestMain, and what it gets
// adds more to the API than the database. Machines listen on loopback; root may use Socket in a machine's directory with etcdctl.
package processes

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-project/shoal/elastic"
	"github.com/shoal-project/shoal/elastic/pki"
)

// env tells a process which machine it is.
const env = "SHOAL_TEST_MACHINE"

// Socket is the name of the unix socket for etcdctl in a machine's directory.
const Socket = "etcd.sock"

// Config is a machine's: those of its elastic node, and with the database in a directory of its own.
type Config struct {
	Name, Dir, Address string
	Tick, Election     time.Duration
	Ping, Offline      time.Duration
	Voters, Standbys   int
}

// Main runs a machine and does not return, when this process is one; else it does nothing. add, which may be nil, puts more calls into the machine's API.
func Main(add func(Config, *elastic.Node, *http.ServeMux)) {
	text := os.Getenv(env)
	if text == "" {
		return
	}
	var c Config
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = serve(c, add)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

func serve(c Config, add func(Config, *elastic.Node, *http.ServeMux)) error {
	mux, ready := http.NewServeMux(), make(chan struct{})
	l, err := net.Listen("tcp", c.Address)
	if err != nil {
		return err
	}
	n, err := elastic.Open(context.Background(), elastic.NodeConfig{
		Config: elastic.Config{Name: c.Name, Dir: filepath.Join(c.Dir, "db"), Tick: c.Tick, Election: c.Election,
			Log: slog.New(slog.NewTextHandler(os.Stderr, nil))},
		Listener: l, Address: c.Address, Certs: pki.In(c.Dir), Socket: filepath.Join(c.Dir, Socket),
		API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-ready
			mux.ServeHTTP(w, r)
		}),
		Ping: c.Ping, Offline: c.Offline, Targets: elastic.Targets{Voters: c.Voters, Standbys: c.Standbys},
	})
	if err != nil {
		return err
	}
	addDatabase(n, mux)
	if add != nil {
		add(c, n, mux)
	}
	close(ready)
	return nil
}

// Reply answers a call of the API.
func Reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(v) // whoever asked has gone
}

func addDatabase(n *elastic.Node, mux *http.ServeMux) {
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) { Reply(w, n.Status(), nil) })
	mux.HandleFunc("/view", func(w http.ResponseWriter, r *http.Request) { v, _ := n.Members(); Reply(w, v, nil) })
	mux.HandleFunc("/bootstrap", func(w http.ResponseWriter, r *http.Request) { Reply(w, "", n.Bootstrap(r.Context())) })
	mux.HandleFunc("/join", func(w http.ResponseWriter, r *http.Request) { Reply(w, "", n.Join(r.Context(), r.FormValue("via"))) })
	mux.HandleFunc("/leave", func(w http.ResponseWriter, r *http.Request) { Reply(w, "", n.Leave(r.Context())) })
	mux.HandleFunc("/recover", func(w http.ResponseWriter, r *http.Request) { Reply(w, "", n.Recover(r.Context(), true)) })
	mux.HandleFunc("/put", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(n.Writes(), cancel)() // as kvstore/etcd does
		cl, _, err := n.Client(ctx)
		if err == nil {
			_, err = cl.Put(ctx, r.FormValue("k"), r.FormValue("v"))
		}
		Reply(w, "", err)
	})
	mux.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		cl, _, err := n.Client(r.Context())
		value := ""
		if err == nil {
			res, gerr := cl.Get(r.Context(), r.FormValue("k"))
			if err = gerr; err == nil && len(res.Kvs) > 0 {
				value = string(res.Kvs[0].Value)
			}
		}
		Reply(w, value, err)
	})
}
