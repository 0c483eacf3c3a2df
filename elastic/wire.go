package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/shoal-project/shoal/elastic/pki"
	"github.com/shoal-project/shoal/internal/errs"
)

// Status is what a machine says of itself.
type Status struct {
	Name    string `json:"name"`
	ID      string `json:"id"` // of the machine's identity
	Role    Role   `json:"role"`
	Running bool   `json:"running"` // it has or starts a copy
	Leader  bool   `json:"leader,omitempty"`
	Quorum  bool   `json:"quorum,omitempty"` // its copy knows of a leader

	Member   string `json:"member,omitempty"` // etcd's ids in hexadecimal
	Cluster  string `json:"cluster,omitempty"`
	Epoch    int64  `json:"epoch,omitempty"`
	Term     uint64 `json:"term,omitempty"`
	Applied  uint64 `json:"applied,omitempty"`
	Revision int64  `json:"revision,omitempty"`

	Seen string `json:"seen,omitempty"` // View.Version that it has
}

// MemberInfo is a machine as the leader sees it.
type MemberInfo struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Domain  string `json:"domain,omitempty"`
	Role    Role   `json:"role"`
	Online  bool   `json:"online"`
	Leader  bool   `json:"leader,omitempty"`
	Leaving bool   `json:"leaving,omitempty"`
}

// View is the whole cluster as the leader sees it. Every machine has the newest in memory, at most a ping old while there is a leader.
type View struct {
	Version string       `json:"version"` // differs when anything differs
	Cluster string       `json:"cluster"`
	Epoch   int64        `json:"epoch"`
	Targets Targets      `json:"targets"`
	Problem string       `json:"problem,omitempty"` // what an operator should know
	Members []MemberInfo `json:"members"`           // sorted by name
}

func (v View) voters() (out []string) {
	for _, m := range v.Members {
		if m.Role == Voter {
			out = append(out, m.Address)
		}
	}
	return out
}

func (v View) leader() string {
	for _, m := range v.Members {
		if m.Leader {
			return m.Name
		}
	}
	return ""
}

// ping is the leader's beat: it asks for the status and brings what has changed.
type ping struct {
	Cluster string `json:"cluster"`
	Epoch   int64  `json:"epoch"`
	View    *View  `json:"view,omitempty"`
}

// startOrder tells a spare to copy the database from the members of the initial cluster ("name=url,…").
type startOrder struct {
	Cluster  string `json:"cluster"`
	Epoch    int64  `json:"epoch"`
	Members  string `json:"members"`
	Revision int64  `json:"revision"` // that the copy must reach
}

// stopOrder tells a machine that its member was removed.
type stopOrder struct {
	Epoch  int64  `json:"epoch"`
	Member string `json:"member"`
	Forget bool   `json:"forget,omitempty"` // and that it belongs to the cluster no longer
}

// aboutQuestion asks what a machine knows of another, its answer.
type aboutQuestion struct {
	Name string `json:"name"`
	ID   string `json:"id"`
}

type aboutAnswer struct {
	Status
	Voters []string `json:"voters"` // addresses
	Copy   bool     `json:"copy"`   // the rest was read from a copy of the database
	Known  bool     `json:"known"`  // it has a record of that name and id
	Starts int64    `json:"starts"`
	IDs    []string `json:"ids"` // of the members
}

// maxOrder bounds the bodies that machines send each other: a view of a thousand machines has 150 kB.
const maxOrder = 4 << 20

// caller sends orders and questions.
type caller struct{ http *http.Client }

func newCaller(certs pki.Files) caller {
	d := &net.Dialer{Timeout: time.Second, KeepAlive: 10 * time.Second}
	return caller{&http.Client{Transport: &http.Transport{DialContext: d.DialContext, TLSClientConfig: certs.Dial("http/1.1"), MaxIdleConnsPerHost: 1,
		IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 2 * time.Second}}}
}

func (c caller) close() { c.http.CloseIdleConnections() }

// call posts in to an order's path and reads the answer into out, which may be nil.
func (c caller) call(ctx context.Context, address, order string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+ordersPath+order, bytes.NewReader(body))
	if err != nil {
		return errs.Invalid("address %q of a machine: %w", address, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return errs.Unavailable("%w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxOrder))
	if err != nil {
		return errs.Unavailable("%s at %s: %w", order, address, err)
	}
	if res.StatusCode != http.StatusOK {
		text := fmt.Errorf("%s at %s: %s", order, address, strings.TrimSpace(string(data[:min(len(data), 500)])))
		return errs.Classify(classOf(res), text)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return errs.Unavailable("%s at %s: %w", order, address, err)
	}
	return nil
}

// classHeader carries an error's class, of which several have one HTTP status.
const classHeader = "Shoal-Error-Class"

func classOf(r *http.Response) errs.Class {
	for c := errs.Internal; c <= errs.UnsupportedClass; c++ {
		if c.String() == r.Header.Get(classHeader) {
			return c
		}
	}
	return errs.FromHTTPStatus(r.StatusCode)
}

// order makes a handler of a function.
func order[I, O any](do func(context.Context, *http.Request, I) (O, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in I
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&in)
		if err != nil {
			err = errs.Invalid("the order is not what it should be: %w", err)
		}
		var out O
		if err == nil {
			out, err = do(r.Context(), r, in)
		}
		if err != nil {
			w.Header().Set(classHeader, errs.ClassOf(err).String())
			http.Error(w, err.Error(), errs.HTTPStatus(errs.ClassOf(err)))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the other side sees it
	}
}
