package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/shoal-project/shoal/api"
)

// Dialer finds and reaches servers; where names are resolved in another way than the host does, it is replaced.
type Dialer interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// hostDialer is the Dialer of the host that this runs on.
type hostDialer struct {
	net.Resolver
	net.Dialer
}

func (d *hostDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d.Dialer.DialContext(ctx, network, address)
}

// DebugOptions say what Debug looks at.
type DebugOptions struct {
	File string // the configuration file, see LoadConfig
	// Prefix is under which our keys live, Beats the prefix of the heartbeats, each written every BeatEvery by one of our daemons.
	Prefix, Beats string
	BeatEvery     time.Duration
	Dialer        Dialer        // nil: the host's
	Step          time.Duration // how long each step may take; 0 means 3 s
	Now           func() time.Time
}

// Debug checks, from the file on, everything that has to be right for a client to use the cluster, each step also when those before it
// failed, and says what it found. It writes nothing. It takes at most a few times Step, all is asked at once.
//
// The server's verdict on a client's certificate comes, in TLS 1.3, only with the first answer; so the version is asked for on the connection.
func Debug(ctx context.Context, o DebugOptions) api.DatabaseReport {
	if o.Dialer == nil {
		o.Dialer = &hostDialer{}
	}
	if o.Step <= 0 {
		o.Step = 3 * time.Second
	}
	if o.BeatEvery <= 0 {
		o.BeatEvery = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &debugger{o: o}
	cfg, err := LoadConfig(o.File)
	if err != nil {
		return Report("etcd", check("configuration", api.CheckError, err.Error(),
			"a YAML file with endpoints, and where needed trusted-ca-file, cert-file, key-file, username, password"))
	}
	d.cfg = cfg
	var endpoints, client api.DatabaseCheck
	var wg sync.WaitGroup
	wg.Go(func() { endpoints = d.endpoints(ctx) })
	wg.Go(func() { client = d.client(ctx) })
	wg.Wait()
	return Report("etcd", check("configuration", api.CheckOK, o.File, ""), endpoints, d.certificates(), client)
}

// Report counts the problems in checks.
func Report(database string, checks ...api.DatabaseCheck) api.DatabaseReport {
	var count func([]api.DatabaseCheck) int
	count = func(list []api.DatabaseCheck) (n int) {
		for _, c := range list {
			if c.Status == api.CheckError {
				n++
			}
			n += count(c.Checks)
		}
		return n
	}
	return api.DatabaseReport{Database: database, Problems: count(checks), Checks: checks}
}

func check(name, status, text, hint string, below ...api.DatabaseCheck) api.DatabaseCheck {
	return api.DatabaseCheck{Name: name, Status: status, Text: text, Hint: hint, Checks: below}
}

func info(name, format string, args ...any) api.DatabaseCheck {
	return check(name, api.CheckInfo, fmt.Sprintf(format, args...), "")
}

// debugger is one check of one configuration.
type debugger struct {
	o   DebugOptions
	cfg Config
}

func (d *debugger) step(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d.o.Step)
}

func (d *debugger) endpoints(ctx context.Context) api.DatabaseCheck {
	out := check("endpoints", api.CheckInfo, fmt.Sprint(len(d.cfg.Endpoints)), "", make([]api.DatabaseCheck, len(d.cfg.Endpoints))...)
	var wg sync.WaitGroup
	for i, e := range d.cfg.Endpoints {
		wg.Go(func() { out.Checks[i] = check(e, api.CheckInfo, "", "", d.endpoint(ctx, e)...) })
	}
	wg.Wait()
	return out
}

// endpoint goes to one server as far as it comes: name, TCP, TLS, an answer.
func (d *debugger) endpoint(ctx context.Context, endpoint string) []api.DatabaseCheck {
	scheme, host, port := splitEndpoint(endpoint)
	var out []api.DatabaseCheck
	if net.ParseIP(host) == nil {
		rctx, cancel := d.step(ctx)
		addrs, err := d.o.Dialer.LookupHost(rctx, host)
		cancel()
		if err != nil {
			out = append(out, check("name", api.CheckError, err.Error(), fmt.Sprintf("is %q spelled right, and does this machine's DNS or /etc/hosts know it?", host)))
			return out
		}
		more := ""
		if len(addrs) > 4 {
			addrs, more = addrs[:4], ", …"
		}
		out = append(out, check("name", api.CheckOK, "resolves to "+strings.Join(addrs, ", ")+more, ""))
	}
	sctx, cancel := d.step(ctx)
	defer cancel()
	conn, err := d.o.Dialer.DialContext(sctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return append(out, check("connection", api.CheckError, err.Error(), dialHint(err, port)))
	}
	defer func() { _ = conn.Close() }()
	end, _ := sctx.Deadline()
	_ = conn.SetDeadline(end)
	stop := context.AfterFunc(sctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	out = append(out, check("connection", api.CheckOK, "to "+conn.RemoteAddr().String(), ""))
	if scheme == "https" {
		return append(out, d.secure(conn, host, port)...)
	}
	return append(out, d.version(conn, host, port, nil))
}

func dialHint(err error, port string) string {
	var timeout net.Error
	switch {
	case strings.Contains(err.Error(), "refused"):
		return "nothing listens on port " + port + " there: is etcd running, and is this its client port (2379 unless changed), not its peer port?"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer at all: is the address right, and does a firewall drop the packets?"
	}
	return "can this machine reach that address?"
}

// splitEndpoint takes an endpoint apart that Config.check let through. A missing port is the scheme's, as for the client.
func splitEndpoint(endpoint string) (scheme, host, port string) {
	scheme, rest, _ := strings.Cut(endpoint, "://")
	rest, _, _ = strings.Cut(rest, "/")
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme, host, port
}
