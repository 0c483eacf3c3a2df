package run

import "sync"

// head keeps the first max bytes and notes that there were more; the program is not disturbed.
type head struct {
	max  int
	buf  []byte
	over bool
}

func (h *head) Write(p []byte) (int, error) {
	n := len(p)
	if room := h.max - len(h.buf); n > room {
		h.over = true
		p = p[:max(room, 0)]
	}
	h.buf = append(h.buf, p...)
	return n, nil
}

// tail keeps the last max bytes.
type tail struct {
	mu  sync.Mutex
	max int
	buf []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	t.buf = append(t.buf, p[max(0, n-t.max):]...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
		t.cut = true
	}
	return n, nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut {
		return "…" + string(t.buf)
	}
	return string(t.buf)
}
