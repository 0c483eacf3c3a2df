package scheduler

import (
	"testing"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/world/names"
)

// FuzzBoard feeds the board whatever may stand in the store: nothing that it makes of it names who is not a candidate or is too much.
func FuzzBoard(f *testing.F) {
	f.Add("web", "h1", []byte(`{"v":1,"record":{"strategy":"spread","max":1}}`), []byte(`{"v":1,"record":{"hosts":["h1","h1"],"inputs":9}}`), []byte(`{"v":1,"record":{"load":1}}`))
	f.Add("a/b", "..", []byte(`{"v":2}`), []byte(`{}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, name, host string, spec, result, cand []byte) {
		k := keys{names.Namespace{}}
		b := newBoard(k)
		for i, kv := range []kvstore.KeyValue{{Key: k.spec(name), Value: spec}, {Key: k.result(name), Value: result}, {Key: k.host(name, host), Value: cand}} {
			kv.ModRevision, kv.CreateRevision = int64(i+1), int64(i+1)
			s, leaf, h, ok := k.parse(kv.Key)
			if ok && (s != name || leaf == hostsLeaf && h != host) {
				t.Errorf("%q was read as schedule %q, host %q", kv.Key, s, h)
			}
			b.apply(kvstore.Event{Type: kvstore.Created, KV: kv})
		}
		v := b.view(name, 9)
		v.Standings()
		if len(v.Result.Hosts) > 0 && (v.Spec == nil || v.Spec.Check() != nil || v.Result.Hosts[0] != host || v.Candidates[0].Facts.Check() != nil) {
			t.Errorf("%+v", v)
		}
		if v.Spec != nil {
			if got := Choose(Input{Schedule: name, Spec: *v.Spec, Candidates: v.Candidates, Previous: v.Result.Hosts}); len(got) > 1 {
				t.Errorf("chosen %v", got)
			}
		}
		for _, key := range []string{k.spec(name), k.result(name), k.host(name, host)} {
			b.apply(kvstore.Event{Type: kvstore.Deleted, KV: kvstore.KeyValue{Key: key}})
		}
		if len(b.at) > 0 {
			t.Errorf("left %v", b.at)
		}
	})
}
