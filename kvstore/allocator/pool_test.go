package allocator_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-project/shoal/kvstore/allocator"
)

// The pool against a model: a set of ids that are not free.
func TestPoolProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		min := allocator.ID(rapid.OneOf(rapid.Uint64Range(1, 70000), rapid.Uint64Range(1<<64-70000, 1<<64-2)).Draw(t, "min"))
		max := min + allocator.ID(rapid.Uint64Range(0, 40).Draw(t, "size"))
		if max < min {
			max = 1<<64 - 1
		}
		p, err := allocator.NewPool(min, max)
		if err != nil {
			t.Fatal(err)
		}
		used, leased := map[allocator.ID]bool{}, map[allocator.ID]bool{}
		size := int(max-min) + 1
		free := func() int {
			n := 0
			for i := range size {
				if id := min + allocator.ID(i); !used[id] && !leased[id] {
					n++
				}
			}
			return n
		}
		any := func() allocator.ID {
			return min + allocator.ID(rapid.IntRange(0, size-1).Draw(t, "id"))
		}
		t.Repeat(map[string]func(*rapid.T){
			"lease": func(t *rapid.T) {
				id, ok := p.Lease()
				if ok != (free() > 0) {
					t.Fatalf("lease %d %v with %d free of %d", id, ok, free(), size)
				}
				if !ok {
					return
				}
				if id < min || id > max || used[id] || leased[id] {
					t.Fatalf("leased %d of %d..%d: used %v, leased %v", id, min, max, used[id], leased[id])
				}
				leased[id] = true
			},
			"return": func(t *rapid.T) {
				for id := range leased {
					delete(leased, id)
					inUse := rapid.Bool().Draw(t, "used")
					p.Return(id, inUse)
					used[id] = !p.IsFree(id)
					if !inUse && used[id] {
						t.Fatalf("%d was returned unused and is not free", id)
					}
					break
				}
			},
			"use":  func(t *rapid.T) { id := any(); p.Use(id); used[id] = true },
			"cool": func(*rapid.T) { p.Cool() },
			"free": func(t *rapid.T) {
				id := any()
				p.Free(id)
				if !leased[id] {
					delete(used, id)
				}
			},
			"foreign": func(*rapid.T) { p.Use(min - 1); p.Free(max + 1); p.Return(max+1, false) },
		})
	})
}

func TestPoolIsLazyAndCool(t *testing.T) {
	p, err := allocator.NewPool(1, 1<<64-1) // would not fit if ids were kept one by one
	if err != nil {
		t.Fatal(err)
	}
	seen := map[allocator.ID]bool{}
	for range 1000 {
		id, ok := p.Lease()
		if !ok || seen[id] {
			t.Fatalf("%d %v", id, ok)
		}
		seen[id] = true
	}
	// across pages: all of them, once
	if p, err = allocator.NewPool(65000, 200000); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		if _, ok := p.Lease(); !ok {
			if n != 200000-65000+1 {
				t.Errorf("%d ids", n)
			}
			break
		}
	}
	// what was freed is the last choice for two rounds
	if p, err = allocator.NewPool(1, 4); err != nil {
		t.Fatal(err)
	}
	p.Use(1)
	p.Free(1)
	p.Cool()
	for range 3 {
		if id, ok := p.Lease(); id == 1 || !ok {
			t.Fatalf("the cooling id was chosen: %d %v", id, ok)
		}
	}
	if id, ok := p.Lease(); id != 1 || !ok {
		t.Errorf("the last choice: %d %v", id, ok)
	}
}
