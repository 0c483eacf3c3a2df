package drivertest

import (
	"bytes"
	"testing"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

func testLife(t *testing.T, e *env) {
	ctx := t.Context()
	s, _ := e.create(t)
	if _, err := e.d.Create(ctx, s); !errs.IsExists(err) {
		t.Errorf("second create: %v, want Exists", err)
	}
	if _, err := e.d.Exec(ctx, s.ID, driver.ExecRequest{Command: []string{"true"}}); err == nil {
		t.Error("a command runs before the start")
	}
	must(t, e.d.Start(ctx, s.ID))
	e.awaitLog(t, s, Ready)
	if err := e.d.Start(ctx, s.ID); err == nil {
		t.Error("started twice")
	}
	wantClass(t, "cleanup of a running instance", e.d.Cleanup(ctx, s.ID), errs.BusyClass)
	must(t, e.d.Kill(ctx, s.ID))
	if x := e.awaitExit(t, s.ID); x.Code != 137 || x.Reboot {
		t.Errorf("exit %+v, want code 137", x)
	}
	must(t, e.d.Kill(ctx, s.ID))
	must(t, e.d.Cleanup(ctx, s.ID))
	must(t, e.d.Cleanup(ctx, s.ID))
	must(t, e.d.Kill(ctx, s.ID))
	if b, err := e.d.ConsoleLog(ctx, s); err != nil || !bytes.Contains(b, []byte(Ready)) {
		t.Errorf("console log after cleanup: %q, %v", b, err)
	}
	_, err := e.d.Create(ctx, s)
	must(t, err)
	must(t, e.d.Start(ctx, s.ID))
	must(t, e.d.Kill(ctx, s.ID))
	e.awaitExit(t, s.ID)
	e.noExit(t)
}

func testUnknown(t *testing.T, e *env) {
	ctx := t.Context()
	_, execErr := e.d.Exec(ctx, "nobody", driver.ExecRequest{Command: []string{"true"}})
	_, conErr := e.d.Console(ctx, "nobody")
	_, statErr := e.d.Stats(ctx, "nobody")
	for what, err := range map[string]error{
		"start": e.d.Start(ctx, "nobody"), "shutdown": e.d.Shutdown(ctx, "nobody"), "freeze": e.d.Freeze(ctx, "nobody"),
		"unfreeze": e.d.Unfreeze(ctx, "nobody"), "exec": execErr, "console": conErr, "stats": statErr,
	} {
		wantClass(t, what, err, errs.NotFoundClass)
	}
	must(t, e.d.Kill(ctx, "nobody"))
	must(t, e.d.Cleanup(ctx, "nobody"))
	s := e.h.Spec(t)
	if b, err := e.d.ConsoleLog(ctx, s); err != nil || len(b) != 0 {
		t.Errorf("console log of one that never ran: %q, %v", b, err)
	}
	must(t, e.d.ClearConsoleLog(ctx, s))
}

func testCleanupOfCreated(t *testing.T, e *env) {
	s, _ := e.create(t)
	must(t, e.d.Cleanup(t.Context(), s.ID))
	if r := e.restart(t); len(r) != 0 {
		t.Errorf("left: %+v", r)
	}
	_, err := e.d.Create(t.Context(), s)
	must(t, err)
	must(t, e.d.Kill(t.Context(), s.ID))
}

func testPoweroff(t *testing.T, e *env) {
	s, _ := e.start(t)
	_, err := e.d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"poweroff", "-f"}, Env: map[string]string{}})
	must(t, err)
	if x := e.awaitExit(t, s.ID); x.Reboot || x.Code != 130 {
		t.Errorf("exit %+v, want code 130 and no reboot", x)
	}
}

func testReboot(t *testing.T, e *env) {
	s, _ := e.start(t)
	_, err := e.d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"reboot", "-f"}, Env: map[string]string{}})
	must(t, err)
	if x := e.awaitExit(t, s.ID); !x.Reboot {
		t.Errorf("exit %+v, want a reboot", x)
	}
	must(t, e.d.Cleanup(t.Context(), s.ID))
	_, err = e.d.Create(t.Context(), s)
	must(t, err)
	must(t, e.d.Start(t.Context(), s.ID))
}

func testShutdown(t *testing.T, e *env) {
	s, _ := e.start(t)
	must(t, e.d.Shutdown(t.Context(), s.ID))
	if x := e.awaitExit(t, s.ID); x.Reboot {
		t.Errorf("exit %+v", x)
	}
	e.noExit(t)
}

func testConsole(t *testing.T, e *env) {
	ctx := t.Context()
	s, _ := e.start(t)
	a, err := e.d.Console(ctx, s.ID)
	must(t, err)
	defer a.Close()
	b, err := e.d.Console(ctx, s.ID)
	must(t, err)
	defer b.Close()
	must(t, a.Resize(100, 30))
	_, err = a.Write([]byte("to-all\n"))
	must(t, err)
	readUntil(t, a, "to-all")
	readUntil(t, b, "to-all")
	e.awaitLog(t, s, "to-all")
	must(t, a.Close())
	_, err = b.Write([]byte("second\n"))
	must(t, err)
	readUntil(t, b, "second")
	must(t, e.d.ClearConsoleLog(ctx, s))
	if l, err := e.d.ConsoleLog(ctx, s); err != nil || bytes.Contains(l, []byte("to-all")) {
		t.Errorf("log after clearing: %q, %v", l, err)
	}
	must(t, e.d.Kill(ctx, s.ID))
	eventually(t, "the attachment ends with the instance", func() bool {
		_, err := b.Read(make([]byte, 64))
		return err != nil
	})
}

func testFreeze(t *testing.T, e *env) {
	ctx := t.Context()
	s, _ := e.start(t)
	must(t, e.d.Freeze(ctx, s.ID))
	must(t, e.d.Freeze(ctx, s.ID))
	if _, err := e.d.Exec(ctx, s.ID, driver.ExecRequest{Command: []string{"true"}}); err == nil {
		t.Error("a command runs in a frozen instance")
	}
	if _, err := e.d.Files(ctx, s); err == nil {
		t.Error("files of a frozen instance are served")
	}
	if r := e.restart(t); len(r) != 1 || !r[0].Frozen || !r[0].Running {
		t.Errorf("recovered %+v, want one frozen", r)
	}
	must(t, e.d.Unfreeze(ctx, s.ID))
	if code, _, _ := e.exec(t, s.ID, driver.ExecRequest{Command: []string{"true"}}); code != 0 {
		t.Errorf("code %d after unfreeze", code)
	}
	must(t, e.d.Freeze(ctx, s.ID))
	must(t, e.d.Kill(ctx, s.ID))
	e.awaitExit(t, s.ID)
}

func testStats(t *testing.T, e *env) {
	s, pid := e.start(t)
	st, err := e.d.Stats(t.Context(), s.ID)
	must(t, err)
	if st.InitPID != pid || st.Processes < 1 || st.Memory <= 0 || st.MemoryPeak < st.Memory || st.CPU <= 0 {
		t.Errorf("stats %+v of init %d", st, pid)
	}
	must(t, e.d.Kill(t.Context(), s.ID))
	if _, err := e.d.Stats(t.Context(), s.ID); err == nil {
		t.Error("stats of a stopped instance")
	}
}

func testLimits(t *testing.T, e *env) {
	l, ok := e.d.(driver.Limiter)
	if !ok {
		t.Skip("this driver sets limits at start only")
	}
	s, _ := e.start(t)
	must(t, l.SetLimits(t.Context(), s.ID, driver.Limits{
		MemoryBytes: 64 << 20, CPUs: "0", CPUQuota: 50 * time.Millisecond, CPUPeriod: 100 * time.Millisecond, Processes: 50,
	}))
	must(t, l.SetLimits(t.Context(), s.ID, driver.Limits{}))
	wantClass(t, "limits of nobody", l.SetLimits(t.Context(), "nobody", driver.Limits{}), errs.NotFoundClass)
}

func testRecoverRunning(t *testing.T, e *env) {
	s, pid := e.start(t)
	r := e.restart(t)
	if len(r) != 1 || r[0].ID != s.ID || r[0].PID != pid || !r[0].Running || !r[0].Started || r[0].Frozen {
		t.Fatalf("recovered %+v, want %s running as %d", r, s.ID, pid)
	}
	if code, out, _ := e.exec(t, s.ID, driver.ExecRequest{Command: []string{"echo", "still", "here"}}); code != 0 || out != "still here\n" {
		t.Errorf("exec after recovery: %d %q", code, out)
	}
	must(t, e.d.Kill(t.Context(), s.ID))
	e.awaitExit(t, s.ID)
	e.noExit(t)
}

func testRecoverExited(t *testing.T, e *env) {
	s, _ := e.start(t)
	p, err := e.d.Exec(t.Context(), s.ID, driver.ExecRequest{Command: []string{"sh", "-c", "exit 0"}, Env: map[string]string{}})
	must(t, err)
	_, _ = p.Wait()
	// The guest goes while no daemon is there.
	must(t, e.d.Shutdown(t.Context(), s.ID))
	r := e.restart(t)
	if len(r) != 1 || r[0].ID != s.ID {
		t.Fatalf("recovered %+v", r)
	}
	if r[0].Running { // it is just going: then it is reported
		e.awaitExit(t, s.ID)
		r = e.restart(t)
	} else {
		select { // the old daemon may still have heard of it
		case <-e.exits:
		default:
		}
	}
	if r[0].Running || r[0].Exit.Time.IsZero() || r[0].Exit.Reboot || !r[0].Started {
		t.Errorf("recovered %+v, want an exit", r)
	}
	e.noExit(t)
	must(t, e.d.Cleanup(t.Context(), s.ID))
	if r := e.restart(t); len(r) != 0 {
		t.Errorf("still there after cleanup: %+v", r)
	}
}

func testRecoverCreated(t *testing.T, e *env) {
	s, pid := e.create(t)
	r := e.restart(t)
	if len(r) != 1 || r[0].PID != pid || !r[0].Running || r[0].Started {
		t.Fatalf("recovered %+v, want %d waiting", r, pid)
	}
	must(t, e.d.Start(t.Context(), s.ID))
	e.awaitLog(t, s, Ready)
}
