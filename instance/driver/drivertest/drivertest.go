package drivertest

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

// Ready is what the guest's init prints on its console when it has started.
const Ready = "shoal-test-ready"

// patience bounds every wait for something that must happen soon.
const patience = 30 * time.Second

// Harness makes drivers and guests. A guest has the commands true, false, env, pwd, id, cat, echo, sleep, sh, reboot and poweroff; its
// init prints [Ready] and powers off when it is asked to stop.
type Harness struct {
	// New plays a daemon start: a driver that finds what an earlier one of the same test left.
	New func(t *testing.T, deps driver.Deps) driver.Driver
	// Close plays the daemon's end; instances go on.
	Close func(d driver.Driver)
	// Spec returns an instance with a root of its own.
	Spec func(t *testing.T) driver.Spec
}

// Run proves a driver. newHarness is called once for each test.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, e *env)
	}{
		{"Life", testLife}, {"UnknownID", testUnknown}, {"CleanupOfCreated", testCleanupOfCreated}, {"Poweroff", testPoweroff},
		{"Reboot", testReboot}, {"Shutdown", testShutdown}, {"ExecCodes", testExecCodes}, {"ExecStreams", testExecStreams},
		{"ExecSignal", testExecSignal}, {"ExecTerminal", testExecTerminal}, {"Console", testConsole}, {"Freeze", testFreeze},
		{"Files", testFiles}, {"FilesThenStart", testFilesThenStart}, {"Stats", testStats}, {"RecoverRunning", testRecoverRunning},
		{"RecoverExited", testRecoverExited}, {"RecoverCreated", testRecoverCreated}, {"Limits", testLimits},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &env{h: newHarness(t), exits: make(chan exit, 16)}
			e.d = e.h.New(t, e.deps())
			t.Cleanup(func() { e.end(t) })
			tt.test(t, e)
		})
	}
}

type exit struct {
	id string
	driver.Exit
}

type env struct {
	h     Harness
	d     driver.Driver
	exits chan exit
	mu    sync.Mutex
	ids   []string
}

func (e *env) deps() driver.Deps {
	return driver.Deps{OnExit: func(id string, x driver.Exit) { e.exits <- exit{id, x} }}
}

// end removes all instances of a test and checks that the driver then knows none.
func (e *env) end(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, id := range e.ids {
		if err := e.d.Kill(ctx, id); err != nil {
			t.Errorf("kill %s at the end: %v", id, err)
		}
		if err := e.d.Cleanup(ctx, id); err != nil {
			t.Errorf("clean up %s at the end: %v", id, err)
		}
	}
	e.h.Close(e.d)
	d := e.h.New(t, driver.Deps{})
	defer e.h.Close(d)
	if left, err := d.Recover(ctx); err != nil || len(left) != 0 {
		t.Errorf("left behind: %+v, %v", left, err)
	}
}

func (e *env) restart(t *testing.T) []driver.Recovered {
	t.Helper()
	e.h.Close(e.d)
	e.d = e.h.New(t, e.deps())
	out, err := e.d.Recover(t.Context())
	if err != nil {
		t.Fatalf("recover: %v", err)
	}
	return out
}

func (e *env) create(t *testing.T) (driver.Spec, int) {
	t.Helper()
	s := e.h.Spec(t)
	e.ids = append(e.ids, s.ID)
	c, err := e.d.Create(t.Context(), s)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if c.PID <= 1 {
		t.Fatalf("created with PID %d", c.PID)
	}
	return s, c.PID
}

func (e *env) start(t *testing.T) (driver.Spec, int) {
	t.Helper()
	s, pid := e.create(t)
	must(t, e.d.Start(t.Context(), s.ID))
	e.awaitLog(t, s, Ready)
	return s, pid
}

func (e *env) awaitLog(t *testing.T, s driver.Spec, want string) {
	t.Helper()
	eventually(t, "the console log holds "+want, func() bool {
		b, err := e.d.ConsoleLog(t.Context(), s)
		must(t, err)
		return bytes.Contains(b, []byte(want))
	})
}

func (e *env) awaitExit(t *testing.T, id string) driver.Exit {
	t.Helper()
	select {
	case x := <-e.exits:
		if x.id != id {
			t.Fatalf("exit of %s, want %s", x.id, id)
		}
		if x.Time.IsZero() {
			t.Error("an exit without time")
		}
		return x.Exit
	case <-time.After(patience):
		t.Fatalf("no exit of %s is reported", id)
		return driver.Exit{}
	}
}

func (e *env) noExit(t *testing.T) {
	t.Helper()
	select {
	case x := <-e.exits:
		t.Errorf("exit of %s is reported once more: %+v", x.id, x.Exit)
	default:
	}
}

func (e *env) exec(t *testing.T, id string, req driver.ExecRequest) (code int, out, errOut string) {
	t.Helper()
	var o, x bytes.Buffer
	req.Stdout, req.Stderr = &o, &x
	if req.Env == nil {
		req.Env = map[string]string{}
	}
	p, err := e.d.Exec(t.Context(), id, req)
	if err != nil {
		t.Fatalf("exec %q: %v", req.Command, err)
	}
	code, err = p.Wait()
	if err != nil {
		t.Fatalf("wait for %q: %v", req.Command, err)
	}
	return code, o.String(), x.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantClass(t *testing.T, what string, err error, want errs.Class) {
	t.Helper()
	if !errs.Is(err, want) {
		t.Errorf("%s: got %v (%v), want class %v", what, err, errs.ClassOf(err), want)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", patience, what)
		}
		<-tick.C
	}
}

// readUntil reads until want has come.
func readUntil(t *testing.T, r io.Reader, want string) string {
	t.Helper()
	type result struct {
		text string
		err  error
	}
	ch := make(chan result, 1)
	go func() {
		var got strings.Builder
		buf := make([]byte, 512)
		for {
			n, err := r.Read(buf)
			got.Write(buf[:n])
			if strings.Contains(got.String(), want) || err != nil {
				ch <- result{got.String(), err}
				return
			}
		}
	}()
	select {
	case res := <-ch:
		if !strings.Contains(res.text, want) {
			t.Fatalf("read %q (%v), want %q in it", res.text, res.err, want)
		}
		return res.text
	case <-time.After(patience):
		t.Fatalf("%q does not come", want)
		return ""
	}
}
