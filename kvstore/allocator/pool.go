package allocator

import (
	"math/bits"
	"math/rand/v2"
	"sync"

	"github.com/shoal-project/shoal/internal/errs"
)

const pageIDs = 1 << 16 // ids in one page of the pool

// page is a bitmap of ids that are not free.
type page struct {
	bits [pageIDs / 64]uint64
	n    int // of bits set
}

// Pool knows which ids of a range are free, as far as this node has heard. It takes one bit for each id of the pages that have ids in
// use, so ranges may be of any size. Safe for concurrent use.
//
// An id is free; leased while somebody tries to allocate it; in use; or cooling, after it was freed: a cooling id is chosen only when
// nothing else is left, so that nobody with an old cache takes a new owner for the former one.
type Pool struct {
	min, max ID
	mu       sync.Mutex
	pages    map[uint64]*page // in use or leased
	leased   map[ID]bool
	cooling  [2]map[ID]bool // this round's and the last one's
}

// NewPool returns a pool of the ids from min to max, both included.
func NewPool(min, max ID) (*Pool, error) {
	if min < 1 || max < min {
		return nil, errs.Invalid("id range %d to %d: the first must be at least 1 and not above the last", min, max)
	}
	return &Pool{min: min, max: max, pages: map[uint64]*page{}, leased: map[ID]bool{}, cooling: [2]map[ID]bool{{}, {}}}, nil
}

// Lease chooses a free id: the first one after a random place. ok is false when there is none.
func (p *Pool) Lease() (id ID, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	start := p.min
	if n := uint64(p.max - p.min); n == 1<<64-1 {
		start += ID(rand.Uint64())
	} else {
		start += ID(rand.Uint64N(n + 1))
	}
	if id, ok = p.find(start, true); !ok {
		if id, ok = p.find(start, false); !ok {
			return 0, false
		}
	}
	p.set(id)
	p.leased[id] = true
	return id, true
}

// find looks from start to the end of the range and then from its beginning.
func (p *Pool) find(start ID, warm bool) (ID, bool) {
	if id, ok := p.scan(start, p.max, warm); ok || start == p.min {
		return id, ok
	}
	return p.scan(p.min, start-1, warm)
}

func (p *Pool) scan(from, to ID, warm bool) (ID, bool) {
	for {
		pg := p.pages[uint64(from)/pageIDs]
		end := from | (pageIDs - 1) // the last id of the page
		if pg == nil || pg.n < pageIDs {
			for id := from; ; {
				var ok bool
				if id, ok = pg.next(id); !ok || id > to {
					break
				}
				if !warm || !p.cooling[0][id] && !p.cooling[1][id] {
					return id, true
				}
				if id == end || id == to {
					break
				}
				id++
			}
		}
		if end >= to {
			return 0, false
		}
		from = end + 1
	}
}

// next returns the first id from id on, in its page, that is not set.
func (pg *page) next(id ID) (ID, bool) {
	if pg == nil {
		return id, true
	}
	base, at := id&^(pageIDs-1), int(id%pageIDs)
	free := ^pg.bits[at/64] >> (at % 64) << (at % 64)
	for w := at / 64; ; free = ^pg.bits[w] {
		if free != 0 {
			return base + ID(w*64+bits.TrailingZeros64(free)), true
		}
		if w++; w == len(pg.bits) {
			return 0, false
		}
	}
}

func (p *Pool) set(id ID) {
	n := uint64(id) / pageIDs
	pg := p.pages[n]
	if pg == nil {
		pg = &page{}
		p.pages[n] = pg
	}
	if w, b := id%pageIDs/64, uint64(1)<<(id%64); pg.bits[w]&b == 0 {
		pg.bits[w] |= b
		pg.n++
	}
}

func (p *Pool) clear(id ID) bool {
	n := uint64(id) / pageIDs
	pg := p.pages[n]
	if pg == nil {
		return false
	}
	if w, b := id%pageIDs/64, uint64(1)<<(id%64); pg.bits[w]&b != 0 {
		pg.bits[w] &^= b
		if pg.n--; pg.n == 0 {
			delete(p.pages, n)
		}
		return true
	}
	return false
}

func (p *Pool) has(id ID) bool { return p.min <= id && id <= p.max }

// Return gives a leased id back; used says that it turned out to be in use.
func (p *Pool) Return(id ID, used bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leased[id] && !used {
		p.clear(id)
	}
	delete(p.leased, id)
}

// Use takes an id out of the pool: a record with it exists.
func (p *Pool) Use(id ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.has(id) {
		p.set(id)
	}
}

// Free puts an id back, cooling, unless somebody is trying to allocate it.
func (p *Pool) Free(id ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.has(id) && !p.leased[id] && p.clear(id) {
		p.cooling[0][id] = true
	}
}

// IsFree tells whether an id could be leased, or is cooling.
func (p *Pool) IsFree(id ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	pg := p.pages[uint64(id)/pageIDs]
	return p.has(id) && (pg == nil || pg.bits[id%pageIDs/64]&(1<<(id%64)) == 0)
}

// Cool ends a round: what has been cooling since before the last round is free.
func (p *Pool) Cool() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cooling[0], p.cooling[1] = map[ID]bool{}, p.cooling[0]
}
