package etcd_test

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// The checker sees what must not happen; otherwise the tests that use it would prove nothing.
func TestModelSeesFaults(t *testing.T) {
	op := func(call, ret int64, in step, out outcome) porcupine.Operation {
		in.key = "k"
		return porcupine.Operation{ClientId: int(call), Input: in, Call: call, Output: out, Return: ret}
	}
	put := func(call, ret int64, v string, rev int64) porcupine.Operation {
		return op(call, ret, step{kind: "put", put: v}, outcome{rev: rev, ok: true})
	}
	get := func(call, ret int64, v string, rev int64) porcupine.Operation {
		return op(call, ret, step{kind: "get"}, outcome{value: v, rev: rev})
	}
	bump := func(call, ret int64, was, v string, rev int64, unknown bool) porcupine.Operation {
		return op(call, ret, step{kind: "bump", put: v}, outcome{value: was, rev: rev, unknown: unknown})
	}
	lock := func(call, ret int64) porcupine.Operation {
		return op(call, ret, step{kind: "lock"}, outcome{ok: true})
	}
	for _, tt := range []struct {
		name string
		ops  []porcupine.Operation
		want bool
	}{
		{"in order", []porcupine.Operation{put(1, 2, "a", 5), get(3, 4, "a", 5)}, true},
		{"overlapping", []porcupine.Operation{put(1, 9, "a", 5), get(2, 3, "a", 5), get(4, 5, "a", 5)}, true},
		{"stale read", []porcupine.Operation{put(1, 2, "a", 5), put(3, 4, "b", 6), get(5, 6, "a", 5)}, false},
		{"read goes back", []porcupine.Operation{put(1, 2, "a", 5), put(3, 20, "b", 6), get(4, 5, "b", 6), get(7, 8, "a", 5)}, false},
		{"lost write", []porcupine.Operation{put(1, 2, "a", 5), get(3, 4, "", 0)}, false},
		{"unknown write that never happened", []porcupine.Operation{op(1, 100, step{kind: "put", put: "a"}, outcome{unknown: true}), get(3, 4, "", 0)}, true},
		{"unknown write that is undone", []porcupine.Operation{op(1, 100, step{kind: "put", put: "a"}, outcome{unknown: true}), get(3, 4, "a", 5), get(5, 6, "", 0)}, false},
		{"counting", []porcupine.Operation{bump(1, 2, "", "1", 5, false), bump(3, 4, "1", "2", 6, false)}, true},
		{"lost count", []porcupine.Operation{bump(1, 9, "", "1", 5, false), bump(2, 8, "", "1", 6, false)}, false},
		{"lost count of unknown outcome that shows", []porcupine.Operation{bump(1, 2, "", "1", 5, false), bump(3, 100, "", "x", 0, true), get(6, 7, "x", 6)}, false},
		{"two holders", []porcupine.Operation{lock(1, 2), lock(3, 4)}, false},
		{"one after the other", []porcupine.Operation{lock(1, 2), op(3, 4, step{kind: "unlock"}, outcome{}), lock(5, 6)}, true},
	} {
		if got := porcupine.CheckOperations(model(), tt.ops); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
