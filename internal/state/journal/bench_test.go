package journal_test

import (
	"context"
	"testing"

	"github.com/shoal-project/shoal/internal/state/journal"
)

// BenchmarkRun is an operation of five steps that do nothing: what the journal itself costs, seven syncs and a directory's.
func BenchmarkRun(b *testing.B) {
	j, err := journal.Open(b.TempDir(), journal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	j.Register(journal.NewKind("k", journal.UndoOnCrash, func(string) (out []journal.Step) {
		for _, n := range []string{"a", "b", "c", "d", "e"} {
			out = append(out, journal.Step{Name: n, Do: func(context.Context) error { return nil }})
		}
		return out
	}))
	for b.Loop() {
		if err := j.Run(b.Context(), journal.Entry{Kind: "k", Subject: "s", Args: ""}); err != nil {
			b.Fatal(err)
		}
	}
}
