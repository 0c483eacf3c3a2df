package world_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/test/backends"
	"github.com/shoal-project/shoal/world"
	"github.com/shoal-project/shoal/world/names"
)

func publish(t testing.TB, w *world.World, payload string) world.Deploy {
	t.Helper()
	d, err := w.Publish(t.Context(), world.Draft{Payload: payload})
	must(t, err)
	return d
}

func TestAddDeploy(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		w, ctx := machine(t, b, "h1"), t.Context()
		if s, err := w.GetDeploy(ctx, 0); s != "" || err != nil {
			t.Errorf("deploy 0: %q %v", s, err)
		}
		for i, tt := range []struct {
			id             uint64
			hash, prevHash string
			payload        string
			want           string // part of the error
		}{
			{0, "", "", "", "first has number 1"},
			{2, "", "", "", "deploy 1 is missing"},
			{1, "", "a", "", "no deploy before"},
			{1, "", "", "one", ""},
			{1, "", "", "one", "number is taken"},
			{2, "a", "x", "", "deploy 1 has no hash"}, // mgmt fails here without saying why
			{2, "a", "", "two", ""},
			{3, "b", "x", "", `the hash of deploy 2 is "a", not "x"`},
			{4, "b", "a", "", "deploy 3 is missing"},
			{3, "b", "a", "three", ""},
			{4, "", "b", "four", ""},
		} {
			before := head(t, w)
			err := w.AddDeploy(ctx, tt.id, tt.hash, tt.prevHash, tt.payload)
			switch {
			case tt.want == "":
				must(t, err)
			case !errs.IsConflict(err) && !errs.Is(err, errs.InvalidInput) || !strings.Contains(err.Error(), tt.want):
				t.Errorf("step %d: %v, want %q", i, err, tt.want)
			case head(t, w) != before:
				t.Errorf("step %d wrote something", i)
			}
		}
		all, err := w.GetDeploys(ctx)
		if err != nil || !maps.Equal(all, map[uint64]string{1: "one", 2: "two", 3: "three", 4: "four"}) {
			t.Errorf("%v %v", all, err)
		}
		if id, err := w.GetMaxDeployID(ctx); id != 4 || err != nil {
			t.Errorf("newest %d %v", id, err)
		}
		if _, err := w.GetDeploy(ctx, 5); !errs.IsNotFound(err) || !strings.Contains(err.Error(), "newest is 4") {
			t.Error(err)
		}
		for _, d := range []world.Draft{{Payload: strings.Repeat("x", names.MaxValue+1)}, {Hash: "a\n"}, {Note: strings.Repeat("x", 600)}, {Content: &world.Signature{Key: "k"}}} {
			if _, err := w.Publish(ctx, d); !errs.Is(err, errs.TooLargeClass) && !errs.Is(err, errs.InvalidInput) {
				t.Errorf("bad draft: %v", err)
			}
		}
		if d := publish(t, w, strings.Repeat("x", names.MaxValue)); d.ID != 5 || d.Size != names.MaxValue {
			t.Errorf("the largest allowed: %+v", d)
		}
	})
}

// Of many who add the same number one succeeds; of many who publish everybody does, without a gap.
func TestDeployRace(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		const n = 50
		ws := make([]*world.World, n)
		for i := range ws {
			ws[i] = machine(t, b, fmt.Sprint("h", i))
		}
		var mu sync.Mutex
		won, lost := 0, 0
		var wg sync.WaitGroup
		for _, w := range ws {
			wg.Go(func() {
				err := w.AddDeploy(t.Context(), 1, "", "", w.Machine())
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case errs.IsConflict(err):
					lost++
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won != 1 || lost != n-1 {
			t.Errorf("%d won, %d lost", won, lost)
		}
		ids := map[uint64]string{}
		for _, w := range ws {
			wg.Go(func() {
				d, err := w.Publish(t.Context(), world.Draft{Payload: w.Machine()})
				mu.Lock()
				defer mu.Unlock()
				if err != nil || ids[d.ID] != "" {
					t.Errorf("%+v %v", d, err)
				}
				ids[d.ID] = w.Machine()
			})
		}
		wg.Wait()
		list, err := ws[0].Deploys(t.Context())
		if err != nil || len(list) != n+1 {
			t.Fatalf("%d deploys: %v", len(list), err)
		}
		for id, m := range ids {
			if id < 2 || id > n+1 || list[id-1].Machine != m {
				t.Errorf("deploy %d is of %s, not %s", id, list[id-1].Machine, m)
			}
		}
	})
}

// Whoever changes history is found out.
func TestDeployChain(t *testing.T) {
	b := backends.Mem(t)
	w, ctx := machine(t, b, "h1"), t.Context()
	for i := range 4 {
		publish(t, w, fmt.Sprint(i))
	}
	key := func(leaf string, id int) string {
		return w.Namespace().Key("deploys", leaf, fmt.Sprintf("%020d", id))
	}
	get := func(k string) []byte {
		kv, ok, err := w.KV().Get(ctx, k)
		must(t, err)
		if !ok {
			t.Fatal("no key ", k)
		}
		return kv.Value
	}
	put := func(k string, v []byte) {
		_, _, err := w.KV().Update(ctx, k, v, 0)
		must(t, err)
	}
	for name, spoil := range map[string]func() (undo func()){
		"payload": func() func() {
			was := get(key("payload", 2))
			put(key("payload", 2), []byte("evil"))
			return func() { put(key("payload", 2), was) }
		},
		"record": func() func() {
			was := get(key("record", 2))
			put(key("record", 2), []byte(strings.Replace(string(was), `"machine":"h1"`, `"machine":"h2"`, 1)))
			return func() { put(key("record", 2), was) }
		},
		"another's record": func() func() {
			was := get(key("record", 2))
			put(key("record", 2), get(key("record", 3)))
			return func() { put(key("record", 2), was) }
		},
		"rubbish": func() func() {
			was := get(key("record", 2))
			put(key("record", 2), []byte("x"))
			return func() { put(key("record", 2), was) }
		},
		"gone": func() func() {
			was := get(key("record", 2))
			_, _, err := w.KV().Remove(ctx, key("record", 2))
			must(t, err)
			return func() { put(key("record", 2), was) }
		},
	} {
		undo := spoil()
		_, e1 := w.GetDeploys(ctx)
		_, _, e2 := w.Deploy(ctx, 2)
		// A record alone is proved by its signature: see TestDeploySignatures.
		if e1 == nil || e2 == nil && name != "record" {
			t.Errorf("%s: list %v, one %v", name, e1, e2)
		}
		undo()
		if _, err := w.GetDeploys(ctx); err != nil {
			t.Fatalf("after %s: %v", name, err)
		}
	}
}

func TestDeployRollback(t *testing.T) {
	w, ctx := machine(t, backends.Mem(t), "h1"), t.Context()
	d, err := w.Publish(ctx, world.Draft{Payload: "good", Hash: "a"})
	must(t, err)
	publish(t, w, "bad")
	back, err := w.Rollback(ctx, d.ID, "bad was bad")
	must(t, err)
	if s, err := w.GetDeploy(ctx, 3); s != "good" || err != nil || back.ID != 3 || back.RollbackOf != 1 || back.Hash != "a" || back.Note != "bad was bad" {
		t.Errorf("%q %v %+v", s, err, back)
	}
	if _, err := w.Rollback(ctx, 9, ""); !errs.IsNotFound(err) {
		t.Error(err)
	}
}

func TestDeployPrune(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		w, ctx := machine(t, b, "h1"), t.Context()
		if n, err := w.PruneDeploys(ctx, 5); n != 0 || err != nil {
			t.Errorf("of nothing: %d %v", n, err)
		}
		for i := range 250 {
			publish(t, w, fmt.Sprint(i+1))
			if i%100 == 0 {
				_, err := w.SetDeployStatus(ctx, uint64(i+1), world.DeployDone, "")
				must(t, err)
			}
		}
		if _, err := w.PruneDeploys(ctx, 0); !errs.Is(err, errs.InvalidInput) {
			t.Error(err)
		}
		for _, tt := range []struct{ keep, n int }{{300, 0}, {250, 0}, {249, 1}, {30, 219}, {30, 0}, {1, 29}} {
			if n, err := w.PruneDeploys(ctx, tt.keep); n != tt.n || err != nil {
				t.Errorf("keep %d: %d, want %d: %v", tt.keep, n, tt.n, err)
			}
			list, err := w.Deploys(ctx) // which checks the chain
			if err != nil || len(list) != min(tt.keep, 250) || list[len(list)-1].ID != 250 {
				t.Errorf("keep %d: %d left: %v", tt.keep, len(list), err)
			}
		}
		kvs, _, err := w.KV().ListPrefix(ctx, w.Namespace().Prefix("deploys"))
		if err != nil || len(kvs) != 4 { // head, floor, one record and payload
			t.Errorf("%d keys left: %v", len(kvs), err)
		}
		if _, err := w.GetDeploy(ctx, 7); !errs.IsNotFound(err) || !strings.Contains(err.Error(), "pruned; the oldest left is 250") {
			t.Error(err)
		}
		if _, err := w.SetDeployStatus(ctx, 7, world.DeployDone, ""); !errs.IsNotFound(err) {
			t.Error(err)
		}
		if d := publish(t, w, "next"); d.ID != 251 {
			t.Errorf("%+v", d)
		}
	})
}

// The answer to an add that was lost is found out: no deploy twice, no false error.
func TestDeployLostAnswer(t *testing.T) {
	f := kvtest.NewFaults(backends.Mem(t))
	w := machine(t, f, "h1")
	for i := range 10 {
		n := 0
		f.Fail(func(op string) error {
			if op == "txn after" && i%2 == 0 {
				if n++; n == 1 {
					return kvstore.ErrNoQuorum
				}
			}
			return nil
		})
		if d := publish(t, w, "x"); d.ID != uint64(i+1) {
			t.Errorf("%+v", d)
		}
	}
}

func key(seed byte) world.Ed25519Signer {
	return world.NewEd25519Signer(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), 32))))
}

func TestDeploySignatures(t *testing.T) {
	b, ctx := backends.Mem(t), t.Context()
	node, user, stranger := key('n'), key('u'), key('s')
	var authors []string
	with := func(s world.Signer, trusted ...world.Signer) func(*world.Options) {
		return func(o *world.Options) {
			o.Signer = s
			o.Verifier = world.Ed25519Verifier{Trusted: func() (names []string, err error) {
				for _, k := range trusted {
					names = append(names, k.Key())
				}
				return names, nil
			}}
			o.Authors = func() ([]string, error) { return authors, nil }
		}
	}
	good := machine(t, b, "h1", with(node, node, user))
	unsigned := machine(t, b, "h2")
	bad := machine(t, b, "h3", with(stranger, stranger))
	d := publish(t, good, "1")
	if d.Record == nil || d.Record.Key != node.Key() {
		t.Errorf("%+v", d)
	}
	if s, err := good.GetDeploy(ctx, 1); s != "1" || err != nil {
		t.Error(s, err)
	}
	if _, err := bad.GetDeploy(ctx, 1); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "not trusted") {
		t.Errorf("of an untrusted key: %v", err)
	}
	publish(t, unsigned, "2")
	if _, err := good.GetDeploy(ctx, 2); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "not signed") {
		t.Errorf("not signed: %v", err)
	}
	// A changed record: with its digest the signature goes.
	rec := good.Namespace().Key("deploys", "record", fmt.Sprintf("%020d", 1))
	kv, _, err := good.KV().Get(ctx, rec)
	must(t, err)
	_, _, err = good.KV().Update(ctx, rec, []byte(strings.Replace(string(kv.Value), `"machine":"h1"`, `"machine":"h9"`, 1)), 0)
	must(t, err)
	if _, err := good.GetDeploy(ctx, 1); !errs.Is(err, errs.Denied) {
		t.Errorf("changed: %v", err)
	}
	_, _, err = good.KV().Update(ctx, rec, kv.Value, 0)
	must(t, err)

	// Only what an author signed, once there are authors.
	authors = []string{user.Key()}
	sign := func(k world.Ed25519Signer, hash, payload string) *world.Signature {
		s, err := k.Sign(world.ContentMessage(hash, payload))
		must(t, err)
		return &world.Signature{Key: k.Key(), Sig: s}
	}
	before := head(t, good)
	for name, dr := range map[string]world.Draft{
		"none": {Payload: "3"}, "not an author": {Payload: "3", Content: sign(node, "", "3")},
		"of other content": {Payload: "3", Content: sign(user, "", "4")}, "of another hash": {Payload: "3", Hash: "a", Content: sign(user, "b", "3")},
		"a wrong name": {Payload: "3", Content: &world.Signature{Key: user.Key(), Sig: sign(stranger, "", "3").Sig}},
	} {
		if _, err := good.Publish(ctx, dr); !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if head(t, good) != before {
		t.Error("something was added")
	}
	d, err = good.Publish(ctx, world.Draft{Payload: "3", Hash: "a", Content: sign(user, "a", "3")})
	must(t, err)
	back, err := good.Rollback(ctx, d.ID, "")
	if err != nil || back.Content == nil || back.RollbackOf != d.ID {
		t.Errorf("%+v %v", back, err)
	}
	if _, err := good.GetDeploy(ctx, back.ID); err != nil {
		t.Error(err)
	}
}

func TestParseKey(t *testing.T) {
	k := ed25519.NewKeyFromSeed(make([]byte, 32))
	der, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	s, err := world.ParseEd25519Signer(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil || s.Key() != world.KeyName(k.Public().(ed25519.PublicKey)) {
		t.Error(s.Key(), err)
	}
	for _, bad := range []string{"", "x", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))} {
		if _, err := world.ParseEd25519Signer([]byte(bad)); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "ed25519:", s.Key() + "0", strings.ToUpper(s.Key()), "rsa:00"} {
		if _, err := world.ParseKeyName(bad); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDeployStatus(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		ctx := t.Context()
		one, two := machine(t, b, "h1"), machine(t, b, "h2")
		for _, w := range []*world.World{one, two} {
			_, err := w.Announce(ctx)
			must(t, err)
		}
		publish(t, one, "1")
		ws, err := two.WatchDeployStatus(ctx, 1)
		must(t, err)
		defer ws.Close()
		next(t, ws)
		say := func(state world.DeployState, reason string, want bool) {
			t.Helper()
			before := head(t, one)
			changed, err := one.SetDeployStatus(ctx, 1, state, reason)
			if err != nil || changed != want || (head(t, one) != before) != want {
				t.Errorf("%s: changed %v: %v", state, changed, err)
			}
			if want {
				next(t, ws)
			}
		}
		status := func() string {
			t.Helper()
			list, err := two.DeployStatus(ctx, 1)
			must(t, err)
			var out []string
			for _, s := range list {
				out = append(out, strings.TrimSpace(fmt.Sprint(s.Machine, " ", s.State, " ", s.Reason)))
			}
			return strings.Join(out, ", ")
		}
		if got := status(); got != "h1 pending, h2 pending" {
			t.Error(got)
		}
		say(world.DeployRunning, "", true)
		say(world.DeployRunning, "", false)
		say(world.DeployFailed, "no disk", true)
		say(world.DeployFailed, "no disk", false)
		if got := status(); got != "h1 failed no disk, h2 pending" {
			t.Error(got)
		}
		say(world.DeployDone, "", true)
		long := strings.Repeat("é", 5000)
		say(world.DeployFailed, long, true)
		if got := status(); len(got) > 4200 || !strings.Contains(got, "é…, h2") {
			t.Errorf("a long reason: %d bytes", len(got))
		}
		for _, tt := range []struct {
			id     uint64
			state  world.DeployState
			reason string
			class  errs.Class
		}{{1, "x", "", errs.InvalidInput}, {1, world.DeployFailed, "", errs.InvalidInput}, {1, world.DeployDone, "x", errs.InvalidInput}, {2, world.DeployDone, "", errs.NotFoundClass}} {
			if _, err := one.SetDeployStatus(ctx, tt.id, tt.state, tt.reason); !errs.Is(err, tt.class) {
				t.Errorf("%+v: %v", tt, err)
			}
		}
		if _, err := one.DeployStatus(ctx, 2); !errs.IsNotFound(err) {
			t.Error(err)
		}
	})
}

// A new deploy is seen by all machines that watch.
func TestWatchDeploy(t *testing.T) {
	backends.Run(t, func(t *testing.T, b kvstore.Backend) {
		w := machine(t, b, "h0")
		machines := 50
		if strings.HasSuffix(t.Name(), "/etcd") {
			machines = 5 // they share one client of etcd, which may hang when fifty of its watches are closed at once
		}
		var wg sync.WaitGroup
		for i := range machines {
			m := machine(t, b, fmt.Sprint("h", i+1))
			ws, err := m.WatchDeploy(t.Context())
			must(t, err)
			next(t, ws)
			wg.Go(func() {
				defer ws.Close()
				for range ws.C() {
					if id, err := m.GetMaxDeployID(t.Context()); err != nil || id == 3 {
						if s, err := m.GetDeploy(t.Context(), id); s != "third" || err != nil {
							t.Errorf("%q %v", s, err)
						}
						return
					}
				}
				t.Error(ws.Err())
			})
		}
		for _, p := range []string{"first", "second", "third"} {
			publish(t, w, p)
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("not seen by all")
		}
		wg.Wait()
	})
}

// FuzzDeployRecord has records from a store that anybody may have written to.
func FuzzDeployRecord(f *testing.F) {
	b := backends.Mem(f)
	w := machine(f, b, "h1")
	ctx := f.Context()
	d, err := w.Publish(ctx, world.Draft{Payload: "p", Hash: "h"})
	must(f, err)
	rec := w.Namespace().Key("deploys", "record", fmt.Sprintf("%020d", 1))
	kv, _, err := w.KV().Get(ctx, rec)
	must(f, err)
	f.Add(kv.Value)
	f.Add([]byte(`{"v":1,"body":{}}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, err := w.KV().Update(ctx, rec, data, 0)
		must(t, err)
		list, err := w.Deploys(ctx)
		if err == nil && (len(list) != 1 || list[0].Digest != d.Digest) {
			t.Errorf("another record was taken for the one of the chain: %s", data)
		}
		if got, s, err := w.Deploy(ctx, 1); err == nil && (s != "p" || got.ID != 1) {
			t.Errorf("%+v %q", got, s)
		}
	})
}
