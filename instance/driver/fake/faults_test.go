package fake_test

import (
	"context"
	"testing"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/driver/fake"
	"github.com/shoal-project/shoal/internal/errs"
)

func TestFaultRules(t *testing.T) {
	h := fake.NewHost()
	exits := make(chan driver.Exit, 8)
	d := fake.New(h, driver.Deps{OnExit: func(_ string, e driver.Exit) { exits <- e }})
	defer d.Close()
	ctx := t.Context()
	if err := h.Inject("# first create fails\ncreate * nth 1 error no-space disk full\nfreeze c1 ignore\nunfreeze c1 reboot\nstop"); err == nil {
		t.Fatal("a bad line was accepted")
	}
	if _, err := d.Create(ctx, driver.Spec{ID: "c1"}); err != nil {
		t.Fatalf("a rule of a refused script works: %v", err)
	}
	if err := h.Inject("start * nth 1 error no-space disk full\nstart c1 nth 1 after internal lost\nfreeze c1 ignore\nexec c1 reboot"); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(ctx, "c1"); errs.ClassOf(err) != errs.NoSpaceClass {
		t.Fatalf("start: %v", err)
	}
	if err := d.Start(ctx, "c1"); errs.ClassOf(err) != errs.Internal || err == nil {
		t.Fatalf("second start: %v", err)
	}
	if err := d.Freeze(ctx, "c1"); err != nil {
		t.Fatal(err)
	}
	if r, _ := d.Recover(ctx); len(r) != 1 || !r[0].Started || r[0].Frozen {
		t.Fatalf("lost answer or ignored freeze: %+v", r)
	}
	if _, err := d.Exec(ctx, "c1", driver.ExecRequest{Command: []string{"true"}}); err != nil {
		t.Fatal(err)
	}
	if e := <-exits; !e.Reboot {
		t.Fatalf("exit %+v", e)
	}
}

func TestHangEndsWithContext(t *testing.T) {
	h := fake.NewHost()
	d := fake.New(h, driver.Deps{})
	defer d.Close()
	if err := h.Inject("* * hang"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := d.Kill(ctx, "c1"); !errs.Is(err, errs.UnavailableClass) {
		t.Fatalf("got %v", err)
	}
}

func FuzzInject(f *testing.F) {
	f.Add("create * nth 1 error busy x\nstart c1 exit 7")
	f.Add("* * hang")
	f.Add("kill c1 nth 0 reboot")
	f.Fuzz(func(t *testing.T, script string) {
		if err := fake.NewHost().Inject(script); err != nil && !errs.Is(err, errs.InvalidInput) {
			t.Fatalf("class of %v", err)
		}
	})
}
