package kvstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// List calls each with the pages of all keys with the prefix, in byte order, all at one revision, which it returns. It stops at the
// first error of each. With held, the revision is one at which held held. The next page is read while each has one, no more than that.
func (c *Client) List(ctx context.Context, prefix string, each func([]KeyValue) error, held ...Compare) (Header, error) {
	return c.list(ctx, prefix, false, each, held...)
}

// list is List; with reuse each must not keep the KVs that it gets, only what is in them.
func (c *Client) list(ctx context.Context, prefix string, reuse bool, each func([]KeyValue) error, held ...Compare) (Header, error) {
	r := Range{Key: prefix, End: PrefixEnd(prefix)}
	var head Header
	if len(held) > 0 {
		at, err := c.guarded(ctx, Txn{}, held)
		if err != nil {
			return head, err
		}
		head, r.Revision = at.Header, at.Revision
	}
	if c.cfg.Page <= 0 {
		got, ok, err := c.stream(ctx, r, reuse, each)
		if len(held) > 0 {
			got = head
		}
		if ok {
			return got, err
		}
	}
	return c.pages(ctx, r, head, reuse, each)
}

// stream lists in one go. ok is false when nothing was listed and it is to be tried in pages.
func (c *Client) stream(ctx context.Context, r Range, reuse bool, each func([]KeyValue) error) (h Header, ok bool, err error) {
	s, can := c.Backend.(Streamer)
	if !can {
		return h, false, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(c.cfg.CallTimeout, func() { cancel(context.DeadlineExceeded) }) // between two parts
	defer late.Stop()
	begun := false
	h, ok, err = s.RangeStream(ctx, r, func(part RangeResult) error {
		begun = true
		late.Stop()
		defer late.Reset(c.cfg.CallTimeout)
		if !reuse {
			part.KVs = slices.Clone(part.KVs)
		}
		return each(part.KVs)
	})
	switch {
	case err == nil:
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		err = errs.Classify(errs.UnavailableClass, context.DeadlineExceeded)
	case !begun && errors.Is(err, ErrNoQuorum): // pages are asked for again by themselves
		return h, false, nil
	}
	return h, ok, err
}

// pages lists page by page, the first at revision head.Revision unless that is 0.
func (c *Client) pages(ctx context.Context, r Range, head Header, reuse bool, each func([]KeyValue) error) (Header, error) {
	r.Serializable = r.Revision != 0
	if r.Limit = c.cfg.Page; r.Limit <= 0 {
		r.Limit = firstPage
	}
	page, err := c.page(ctx, r)
	if err != nil {
		return head, err
	}
	if r.Revision == 0 {
		head, r.Revision, r.Serializable = page.Header, page.Revision, true
	}
	var before []KeyValue // the page that each is through with
	for {
		if !page.More {
			return head, each(page.KVs)
		}
		r.Key = page.KVs[len(page.KVs)-1].Key + "\x00"
		if c.cfg.Page <= 0 {
			r.Limit = nextPage(page.KVs)
		}
		if reuse {
			r.Buf = before
		}
		next := c.ahead(ctx, r)
		err := each(page.KVs)
		got := next(err != nil)
		if err != nil {
			return head, err
		}
		if got.err != nil {
			return head, got.err
		}
		before, page = page.KVs, got.page
	}
}

const (
	firstPage = 500
	pageBytes = 900 << 10 // of keys and values
	maxPage   = 10_000
)

// nextPage says how many keys of the size of these make a page, at most eight times as many: the next may be larger.
func nextPage(kvs []KeyValue) int64 {
	size := 1
	for _, kv := range kvs {
		size += len(kv.Key) + len(kv.Value)
	}
	return int64(max(1, min(len(kvs)*pageBytes/size, 8*len(kvs), maxPage)))
}

type pageOrError struct {
	page RangeResult
	err  error
}

// ahead begins to read a page; the function that it returns waits for it, or with stop only for the end of the call.
func (c *Client) ahead(ctx context.Context, r Range) func(stop bool) pageOrError {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan pageOrError, 1)
	go func() {
		page, err := c.page(ctx, r)
		done <- pageOrError{page, err}
	}()
	return func(stop bool) pageOrError {
		if stop {
			cancel()
			<-done
			return pageOrError{}
		}
		defer cancel()
		return <-done
	}
}

// page reads one page. The local copy may not have reached the revision yet: then the leader is asked.
func (c *Client) page(ctx context.Context, r Range) (RangeResult, error) {
	ctx, cancel := c.timeout(ctx)
	defer cancel()
	res, err := c.Range(ctx, r)
	if r.Serializable && errors.Is(err, ErrFuture) {
		r.Serializable = false
		res, err = c.Range(ctx, r)
	}
	return res, err
}
