package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// wait follows an operation to its end. Its progress is shown on a terminal. The first Ctrl-C cancels the
// operation where it can be cancelled, the second leaves it to the server.
func (a *app) wait(ctx context.Context, op *client.Operation) error {
	p := a.progress("")
	defer p.clear()
	if p.on {
		op.OnUpdate(func(o api.Operation) { p.show(progressText(o)) })
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	sig := make(chan os.Signal, 2)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(sig)
	done := make(chan error, 1)
	go func() { done <- op.Wait(ctx) }()
	for interrupts := 0; ; {
		select {
		case err := <-done:
			var oe *client.OperationError
			if interrupts > 0 && errors.As(err, &oe) && oe.Cancelled() {
				return &exitCodeError{exitInterrupted, err}
			}
			return err
		case <-sig:
			p.clear()
			interrupts++
			if interrupts > 1 {
				return &exitCodeError{exitInterrupted, fmt.Errorf("operation %s goes on; see \"shoal operation show %s\"", op.ID(), op.ID())}
			}
			if err := op.Cancel(ctx); err != nil {
				a.errorf("The operation is not cancelled: %s. Press Ctrl-C again to leave it to the server.\n", err)
			} else {
				a.errorf("Cancelling. Press Ctrl-C again to leave.\n")
			}
		}
	}
}

// progressText finds what an operation says about its progress.
func progressText(o api.Operation) string {
	for _, k := range slices.Sorted(maps.Keys(o.Metadata)) {
		if v, ok := o.Metadata[k].(string); ok && strings.HasSuffix(k, "_progress") {
			return v
		}
	}
	return ""
}

// progress is one line on a terminal that is written again and again.
type progress struct {
	a     *app
	label string
	on    bool
	fd    int
	mu    sync.Mutex
	last  string
}

func (a *app) progress(label string) *progress {
	fd, tty := terminal(a.Err)
	return &progress{a: a, label: label, fd: fd, on: tty && !a.quiet && !a.debug}
}

func (p *progress) show(text string) {
	if !p.on || text == "" {
		return
	}
	if p.label != "" {
		text = p.label + ": " + text
	}
	if w, _, err := term.GetSize(p.fd); err == nil {
		text = runewidth.Truncate(printable(text), w-1, "…")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if text != p.last {
		p.last = text
		p.a.errorf("\r\x1b[K%s", text)
	}
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last != "" {
		p.last = ""
		p.a.errorf("\r\x1b[K")
	}
}
