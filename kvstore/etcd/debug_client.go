package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
)

// client uses the cluster as the daemon would, without writing.
func (d *debugger) client(ctx context.Context) api.DatabaseCheck {
	out := check("client", api.CheckInfo, "", "")
	add := func(c ...api.DatabaseCheck) { out.Checks = append(out.Checks, c...) }
	who := info("user", "none: username is not set")
	if d.cfg.Username != "" {
		set := "set"
		if d.cfg.Password == "" {
			set = "not set"
		}
		who = info("user", "%s, password %s", d.cfg.Username, set)
	}
	add(who)
	b, err := dial(d.cfg, d.o.Step, slog.New(slog.DiscardHandler), grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return d.o.Dialer.DialContext(ctx, "tcp", addr)
	}))
	if err != nil {
		add(check("login", api.CheckError, short(err), authHint(err)))
		return out
	}
	defer func() { _ = b.Close() }()
	kctx, cancel := d.step(ctx)
	defer cancel()
	r, err := b.Range(kctx, kvstore.Range{Key: "\x00", CountOnly: true}) // as Client.Head
	if err != nil {
		add(check("read", api.CheckError, short(err), authHint(err)))
		return out
	}
	add(check("read", api.CheckOK, "a majority of the members answers", ""), info("cluster id", "%x", r.Cluster), info("revision", "%d", r.Revision))
	add(d.members(ctx, b), d.limit(ctx, b))
	add(d.keys(ctx, b)...)
	return out
}

// short cuts what gRPC and our classes wrap around a cause that is said again inside.
func short(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "desc = "); i >= 0 {
		text = text[i+len("desc = "):]
	}
	return strings.TrimSuffix(text, `"`)
}

func authHint(err error) string {
	is := func(e error) bool { return strings.Contains(err.Error(), rpctypes.ErrorDesc(e)) }
	switch {
	case is(rpctypes.ErrAuthFailed):
		return "username or password is wrong: check them in the configuration, or set the password with etcdctl user passwd"
	case is(rpctypes.ErrUserEmpty):
		return "the cluster wants to know who is there: set username and password, or a client certificate whose common name is a user"
	case is(rpctypes.ErrPermissionDenied):
		return `the user's role is too narrow: besides its own keys the daemon asks for the revision; grant its role everything with: etcdctl role grant-permission ROLE readwrite "" --prefix`
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "DeadlineExceeded"):
		return "no server let us in, or a majority of the members is down: see the endpoints above"
	}
	return "see the endpoints above"
}

func (d *debugger) members(ctx context.Context, b *Backend) api.DatabaseCheck {
	sctx, cancel := d.step(ctx)
	defer cancel()
	out := check("members", api.CheckOK, "", "")
	answer := 0
	for _, e := range b.Endpoints(sctx) {
		if e.Err != nil {
			out.Checks = append(out.Checks, check(e.Address, api.CheckError, short(e.Err), "see this endpoint above; the others serve meanwhile"))
			continue
		}
		answer++
		role := "follower"
		if e.Leader {
			role = "leader"
		} else if e.Learner {
			role = "learner"
		}
		out.Checks = append(out.Checks, check(e.Address, api.CheckOK, fmt.Sprintf("%s, etcd %s, database of %.1f MiB", role, e.Version, float64(e.Size)/(1<<20)), ""))
	}
	out.Text = fmt.Sprintf("%d of %d answer", answer, len(out.Checks))
	actx, cancel := d.step(ctx)
	defer cancel()
	if r, err := b.cl.AlarmList(actx); err == nil {
		for _, a := range r.Alarms {
			out.Checks = append(out.Checks, check("alarm", api.CheckError, fmt.Sprintf("%s of member %x", a.Alarm, a.MemberID),
				"NOSPACE: compact and defragment, then etcdctl alarm disarm; CORRUPT: replace that member"))
		}
	}
	return out
}

// limit finds out whether the largest transaction that we make is allowed, with reads that a false compare keeps from happening.
func (d *debugger) limit(ctx context.Context, b *Backend) api.DatabaseCheck {
	t := kvstore.Txn{If: []kvstore.Compare{{Key: d.o.Prefix, Target: kvstore.TargetVersion, Equal: -1}}}
	for range kvstore.MaxTxnOps {
		t.Then = append(t.Then, kvstore.Get(d.o.Prefix))
	}
	sctx, cancel := d.step(ctx)
	defer cancel()
	_, err := b.Txn(sctx, t)
	switch {
	case err == nil:
		return check("transaction size", api.CheckOK, fmt.Sprintf("%d operations", kvstore.MaxTxnOps), "")
	case errs.Is(err, errs.TooLargeClass):
		return check("transaction size", api.CheckWarning, fmt.Sprintf("less than %d operations", kvstore.MaxTxnOps),
			fmt.Sprintf("start etcd with --max-txn-ops=%d: changes of many things at once are refused otherwise", kvstore.MaxTxnOps))
	}
	return check("transaction size", api.CheckError, short(err), authHint(err))
}

// keys looks for what our daemons have written.
func (d *debugger) keys(ctx context.Context, b *Backend) []api.DatabaseCheck {
	sctx, cancel := d.step(ctx)
	defer cancel()
	r, err := b.Range(sctx, kvstore.Range{Key: d.o.Prefix, End: kvstore.PrefixEnd(d.o.Prefix), CountOnly: true})
	if err != nil {
		return []api.DatabaseCheck{check("keys", api.CheckError, short(err), authHint(err))}
	}
	if r.Count == 0 {
		return []api.DatabaseCheck{info("keys", "none under %s: no daemon has used this cluster yet", d.o.Prefix)}
	}
	out := []api.DatabaseCheck{info("keys", "%d under %s", r.Count, d.o.Prefix)}
	beats, err := b.Range(sctx, kvstore.Range{Key: d.o.Beats, End: kvstore.PrefixEnd(d.o.Beats), Limit: 1000})
	switch {
	case err != nil:
		return append(out, check("heartbeat", api.CheckError, short(err), authHint(err)))
	case len(beats.KVs) == 0:
		return append(out, check("heartbeat", api.CheckError, "none: no daemon that uses this cluster is alive",
			"is shoald running, with --kvstore etcd.config= and this file, and does its log tell of errors?"))
	}
	for _, kv := range beats.KVs {
		out = append(out, d.beat(strings.TrimPrefix(kv.Key, d.o.Beats), string(kv.Value)))
	}
	return out
}

// beat judges one daemon's heartbeat. It is leased, so its writer lived a lease's time ago; an old time in it tells of clocks that differ, or
// of a writer that renews its lease and cannot write.
func (d *debugger) beat(name, value string) api.DatabaseCheck {
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return check("heartbeat of "+name, api.CheckError, fmt.Sprintf("%q is no time", value), "somebody else writes there: is the prefix used by another program?")
	}
	age := d.o.Now().Sub(at).Truncate(time.Second)
	text := fmt.Sprintf("%s ago", age)
	switch {
	case age > 2*d.o.BeatEvery:
		return check("heartbeat of "+name, api.CheckError, text, "the daemon cannot write, or the clocks of the two machines differ: see its log")
	case age < -d.o.BeatEvery:
		return check("heartbeat of "+name, api.CheckWarning, fmt.Sprintf("%s in the future", -age), "the clocks of the two machines differ")
	}
	return check("heartbeat of "+name, api.CheckOK, text, "")
}
