package fs

import (
	"context"
	"errors"
	"sync"
	"syscall"
)

// Bounds of what a handle holds in memory, in bytes: what was written and not uploaded, and what was read.
const (
	maxDirty = 4 << 20
	workers  = 4 // uploads or reads of one handle at a time
)

// content is a file's bytes: those that are stored and those that have been written since. Not for several goroutines.
type content struct {
	v      *view // where stored chunks are read
	chunk  int64
	size   int64
	sums   []Hash          // of stored chunks; missing ones are zeros
	pages  map[int64]*page // those in memory, newer than sums if dirty
	dirty  int             // number of dirty pages
	recent [2]int64        // clean pages that are kept
	last   int64           // chunk that was read last
	ahead  *ahead          // the next one, if they are read one after the other
	up     *upload
}

// ahead is a chunk that is read before it is asked for, in a goroutine.
type ahead struct {
	h    Hash
	b    []byte
	err  error
	stop context.CancelFunc
	done chan struct{}
}

// page is a chunk in memory. What data has not is zeros.
type page struct {
	data  []byte
	dirty bool
}

// newContent returns the content of an inode that v reads.
func newContent(ctx context.Context, v *view, n inode, up *upload) (*content, error) {
	m, err := v.manifest(ctx, n)
	if err != nil {
		return nil, err
	}
	c := &content{v: v, chunk: m.chunk, size: n.Size, sums: m.sums, pages: map[int64]*page{}, recent: [2]int64{-1, -1}, last: -2, up: up}
	if len(n.Data) > 0 {
		c.inline(n.Data)
	}
	return c, nil
}

// inline puts content that is not stored as chunks into pages.
func (c *content) inline(data []byte) {
	for off := int64(0); off < int64(len(data)); off += c.chunk {
		c.pages[off/c.chunk] = &page{append([]byte(nil), data[off:min(off+c.chunk, int64(len(data)))]...), true}
		c.dirty++
	}
}

// page returns a chunk, read from the store if need be.
func (c *content) page(ctx context.Context, i int64) (*page, error) {
	if p := c.pages[i]; p != nil {
		return p, nil
	}
	p := &page{}
	if i < int64(len(c.sums)) && c.sums[i] != (Hash{}) {
		b, err := c.fetch(ctx, i)
		if err != nil {
			return nil, err
		}
		if int64(len(b)) > c.chunk {
			return nil, errors.Join(ErrCorrupt, errors.New("a chunk is longer than its manifest says"))
		}
		p.data = b
	}
	if old := c.pages[c.recent[0]]; old != nil && !old.dirty {
		delete(c.pages, c.recent[0])
	}
	c.recent = [2]int64{c.recent[1], i}
	c.pages[i] = p
	return p, nil
}

// fetch reads a stored chunk, and begins to read the next one when the last one that was read is before this.
func (c *content) fetch(ctx context.Context, i int64) ([]byte, error) {
	mine := c.ahead
	if mine != nil && mine.h != c.sums[i] {
		c.end()
		mine = nil
	}
	c.ahead = nil
	if next := i + 1; i == c.last+1 && next < int64(len(c.sums)) && c.sums[next] != (Hash{}) {
		a, st, rev := &ahead{h: c.sums[next], done: make(chan struct{})}, c.v.st, c.v.rev
		actx, stop := context.WithCancel(ctx)
		a.stop = stop
		go func() {
			defer close(a.done)
			a.b, a.err = st.blob(actx, a.h, rev)
		}()
		c.ahead = a
	}
	c.last = i
	if mine != nil {
		<-mine.done
		mine.stop()
		if mine.err == nil {
			return mine.b, nil
		}
	}
	return c.v.st.blob(ctx, c.sums[i], c.v.rev)
}

// end stops reading ahead; nothing runs any more afterwards.
func (c *content) end() {
	if a := c.ahead; a != nil {
		a.stop()
		<-a.done
		c.ahead = nil
	}
}

// readAt fills p from off; short at the end of the content.
func (c *content) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= c.size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), c.size-off)]
	n := 0
	for n < len(p) {
		at := off + int64(n)
		pg, err := c.page(ctx, at/c.chunk)
		if err != nil {
			return n, err
		}
		in := at % c.chunk
		part := p[n:min(int64(len(p)), int64(n)+c.chunk-in)]
		have := 0
		if in < int64(len(pg.data)) {
			have = copy(part, pg.data[in:])
		}
		clear(part[have:])
		n += len(part)
	}
	return n, nil
}

// modify makes a page's data at least size long, its own, and dirty.
func (c *content) modify(p *page, size int64) {
	if !p.dirty {
		p.dirty = true
		c.dirty++
		data := make([]byte, len(p.data), max(size, int64(len(p.data)))) // what was read is shared
		copy(data, p.data)
		p.data = data
	}
	if old := int64(len(p.data)); old < size {
		if int64(cap(p.data)) < size {
			grown := make([]byte, old, min(c.chunk, max(size, 2*old)))
			copy(grown, p.data)
			p.data = grown
		}
		p.data = p.data[:size]
		clear(p.data[old:])
	}
}

// writeAt puts p at off and uploads what has become too much to keep. Bytes that were written stay written if the upload fails; it is tried again later.
func (c *content) writeAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off+int64(len(p)) > c.chunk*MaxChunks || off+int64(len(p)) < 0 {
		return 0, syscall.EFBIG
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		i, in := at/c.chunk, at%c.chunk
		part := p[n:min(int64(len(p)), int64(n)+c.chunk-in)]
		pg := c.pages[i]
		if pg == nil && in == 0 && int64(len(part)) == c.chunk {
			pg = &page{} // is written over as a whole: no need to read it
			c.pages[i] = pg
		}
		if pg == nil {
			var err error
			if pg, err = c.page(ctx, i); err != nil {
				return n, err
			}
		}
		c.modify(pg, in+int64(len(part)))
		copy(pg.data[in:], part)
		n += len(part)
		c.size = max(c.size, at+int64(len(part)))
		if int64(c.dirty)*c.chunk > maxDirty && c.size > MaxInline {
			if err := c.flush(ctx, i); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// truncate sets the size; what is added is zeros.
func (c *content) truncate(ctx context.Context, size int64) error {
	switch {
	case size < 0:
		return syscall.EINVAL
	case size > c.chunk*MaxChunks:
		return syscall.EFBIG
	case size >= c.size:
		c.size = size
		return nil
	}
	if in := size % c.chunk; in != 0 {
		p, err := c.page(ctx, size/c.chunk)
		if err != nil {
			return err
		}
		if int64(len(p.data)) > in {
			c.modify(p, 0)
			p.data = p.data[:in]
		}
	}
	keep := (size + c.chunk - 1) / c.chunk
	for i, p := range c.pages {
		if i >= keep {
			if p.dirty {
				c.dirty--
			}
			delete(c.pages, i)
		}
	}
	c.sums = c.sums[:min(int64(len(c.sums)), keep)]
	c.size = size
	return nil
}

// flush uploads the dirty pages but for one, several at a time.
func (c *content) flush(ctx context.Context, but int64) error {
	var todo []int64
	for i, p := range c.pages {
		if p.dirty && i != but {
			todo = append(todo, i)
		}
	}
	sums, errs := make([]Hash, len(todo)), make([]error, len(todo))
	var wg sync.WaitGroup
	slots := make(chan struct{}, workers)
	for n, i := range todo {
		if zero(c.pages[i].data) {
			continue // a hole
		}
		slots <- struct{}{}
		wg.Go(func() {
			sums[n], errs[n] = c.up.put(ctx, c.pages[i].data)
			<-slots
		})
	}
	wg.Wait()
	for n, i := range todo {
		if errs[n] != nil {
			continue
		}
		for int64(len(c.sums)) <= i {
			c.sums = append(c.sums, Hash{})
		}
		c.sums[i] = sums[n]
		delete(c.pages, i)
		c.dirty--
	}
	return errors.Join(errs...)
}

// store uploads what is left and says in n where the content is.
func (c *content) store(ctx context.Context, n *inode) error {
	n.Size, n.Data, n.Manifest = c.size, nil, ""
	if c.size <= MaxInline {
		if c.size > 0 {
			n.Data = make([]byte, c.size)
			if _, err := c.readAt(ctx, n.Data, 0); err != nil {
				return err
			}
		}
		return nil
	}
	if err := c.flush(ctx, -1); err != nil {
		return err
	}
	m := manifest{c.chunk, make([]Hash, (c.size+c.chunk-1)/c.chunk)}
	copy(m.sums, c.sums)
	h, err := c.up.put(ctx, m.encode())
	n.Manifest = h.String()
	return err
}

// stored takes note that the content is committed as n says. What stands in an inode stays dirty: should the file grow, it is uploaded.
func (c *content) stored(n inode) {
	if n.Manifest == "" {
		c.pages, c.sums, c.dirty = map[int64]*page{}, nil, 0
		c.inline(n.Data)
	}
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
