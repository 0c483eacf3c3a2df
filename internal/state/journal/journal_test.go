package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state/journal"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashDir) != "" {
		crashChild()
		return
	}
	goleak.VerifyTestMain(m)
}

// trace is an operation of three steps that writes down what is called and fails where it is told to.
type trace struct {
	calls []string
	fail  map[string]error
}

func (t *trace) call(what string) error {
	t.calls = append(t.calls, what)
	return t.fail[what]
}

func (t *trace) kind(name string, d journal.Direction) journal.Kind {
	return journal.NewKind(name, d, func(arg string) []journal.Step {
		var steps []journal.Step
		for _, n := range []string{"a", "b", "c"} {
			steps = append(steps, journal.Step{Name: n,
				Do:   func(context.Context) error { return t.call("do " + n + arg) },
				Undo: func(context.Context) error { return t.call("undo " + n + arg) }})
		}
		return steps
	})
}

func open(t *testing.T, dir string, kinds ...journal.Kind) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		j.Register(k)
	}
	return j
}

func TestRun(t *testing.T) {
	boom := errors.New("boom")
	for _, tt := range []struct {
		name    string
		dir     journal.Direction
		fail    []string
		want    string
		pending bool
	}{
		{"all steps", journal.UndoOnCrash, nil, "do a,do b,do c", false},
		{"first fails, nothing to undo", journal.UndoOnCrash, []string{"do a"}, "do a", false},
		{"last fails, the others are undone in reverse", journal.UndoOnCrash, []string{"do c"}, "do a,do b,do c,undo b,undo a", false},
		{"undo fails, what is below it stays", journal.UndoOnCrash, []string{"do c", "undo b"}, "do a,do b,do c,undo b", true},
		{"a deletion is never undone", journal.FinishOnCrash, []string{"do b"}, "do a,do b", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tr := &trace{fail: map[string]error{}}
			for _, f := range tt.fail {
				tr.fail[f] = boom
			}
			dir := t.TempDir()
			j := open(t, dir, tr.kind("k", tt.dir))
			err := j.Run(t.Context(), journal.Entry{Kind: "k", Subject: "s", Args: ""})
			if (err != nil) != (len(tt.fail) > 0) || err != nil && !errors.Is(err, boom) {
				t.Errorf("error %v", err)
			}
			if got := strings.Join(tr.calls, ","); got != tt.want {
				t.Errorf("calls %s, want %s", got, tt.want)
			}
			files, _ := filepath.Glob(filepath.Join(dir, "*"))
			if got := len(j.Pending()) == 1; got != tt.pending || len(files) != len(j.Pending()) {
				t.Errorf("pending %v, files %v", j.Pending(), files)
			}
		})
	}
}

func TestLeftEntryIsSettledBeforeTheNext(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		t.Run(fmt.Sprintf("reopen=%v", reopen), func(t *testing.T) {
			tr := &trace{fail: map[string]error{"do b1": errors.New("busy")}}
			dir := t.TempDir()
			kinds := []journal.Kind{tr.kind("delete", journal.FinishOnCrash), tr.kind("create", journal.UndoOnCrash)}
			j := open(t, dir, kinds...)
			if j.Run(t.Context(), journal.Entry{Kind: "delete", Subject: "s", Args: "1"}) == nil {
				t.Fatal("must fail")
			}
			if reopen {
				j = open(t, dir, kinds...)
			}
			if err := j.Run(t.Context(), journal.Entry{Kind: "create", Subject: "s", Args: "2"}); err == nil {
				t.Fatal("the old deletion still fails, a creation must not begin")
			}
			tr.fail, tr.calls = nil, nil
			if err := j.Run(t.Context(), journal.Entry{Kind: "create", Subject: "s", Args: "2"}); err != nil {
				t.Fatal(err)
			}
			if got, want := strings.Join(tr.calls, ","), "do b1,do c1,do a2,do b2,do c2"; got != want {
				t.Errorf("calls %s, want %s", got, want)
			}
			if p := j.Pending(); len(p) != 0 {
				t.Errorf("pending %v", p)
			}
		})
	}
}

func TestOneOperationPerSubject(t *testing.T) {
	dir := t.TempDir()
	var j *journal.Journal
	var inner, other error
	j = open(t, dir, journal.NewKind("k", journal.UndoOnCrash, func(depth int) []journal.Step {
		return []journal.Step{{Name: "a", Do: func(ctx context.Context) error {
			if depth == 0 {
				inner = j.Run(ctx, journal.Entry{Kind: "k", Subject: "s", Args: 1})
				other = j.Run(ctx, journal.Entry{Kind: "k", Subject: "t", Args: 1})
			}
			return nil
		}}}
	}))
	if err := j.Run(t.Context(), journal.Entry{Kind: "k", Subject: "s", Args: 0}); err != nil {
		t.Fatal(err)
	}
	if !errs.Is(inner, errs.BusyClass) || other != nil {
		t.Errorf("same subject: %v, other subject: %v", inner, other)
	}
}

func TestCancelledOperationIsUndone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var calls []string
	j := open(t, t.TempDir(), journal.NewKind("k", journal.UndoOnCrash, func(string) []journal.Step {
		return []journal.Step{
			{Name: "a", Do: func(context.Context) error { cancel(); return nil },
				Undo: func(ctx context.Context) error { calls = append(calls, "undo a"); return ctx.Err() }},
			{Name: "b", Do: func(context.Context) error { calls = append(calls, "do b"); return nil }},
		}
	}))
	err := j.Run(ctx, journal.Entry{Kind: "k", Subject: "s", Args: ""})
	if !errors.Is(err, context.Canceled) || !slices.Equal(calls, []string{"undo a"}) || len(j.Pending()) != 0 {
		t.Errorf("err %v, calls %v, pending %v", err, calls, j.Pending())
	}
}

func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("0000000000000007.entry", "{\"format\":99}\n")
	write("0000000000000008.entry", "no json\n")
	write("0000000000000009.entry", `{"format":1,"seq":9,"kind":"k"`) // torn header: nothing had begun
	tr := &trace{}
	j := open(t, dir, tr.kind("k", journal.UndoOnCrash))
	if err := j.Recover(t.Context()); err != nil || len(tr.calls) != 0 {
		t.Errorf("recover %v, calls %v", err, tr.calls)
	}
	if err := j.Run(t.Context(), journal.Entry{Kind: "k", Subject: "s", Args: ""}); err != nil {
		t.Error(err)
	}
	var left []string
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		left = append(left, f.Name())
	}
	if want := []string{"0000000000000007.entry", "0000000000000008.entry.damaged"}; !slices.Equal(left, want) {
		t.Errorf("files %v, want %v", left, want)
	}
}

func TestUnknownKindWaits(t *testing.T) {
	tr := &trace{fail: map[string]error{"do a": errors.New("x")}}
	dir := t.TempDir()
	j := open(t, dir, tr.kind("old", journal.FinishOnCrash))
	if j.Run(t.Context(), journal.Entry{Kind: "old", Subject: "s", Args: ""}) == nil {
		t.Fatal("must fail")
	}
	j = open(t, dir)
	if err := j.Recover(t.Context()); !errs.Is(err, errs.UnsupportedClass) || len(j.Pending()) != 1 {
		t.Errorf("recover: %v, pending %v", err, j.Pending())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("{\"format\":1,\"seq\":1,\"kind\":\"k\",\"subject\":\"s\",\"on_crash\":\"undo\",\"args\":{}}\n{\"begin\":\"a\"}\n{\"fail\":\"a\"}\n{\"ov"))
	f.Add([]byte("{\"format\":1,\"on_crash\":\"finish\"}\n{\"over\":true}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ok, whole, err := journal.ParseBytes(b)
		if whole > len(b) || ok && err != nil || ok && whole == 0 {
			t.Errorf("ok %v whole %d err %v", ok, whole, err)
		}
	})
}
