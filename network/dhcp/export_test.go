package dhcp

import (
	"context"
	"log/slog"

	"golang.org/x/time/rate"
)

// Handle turns a packet's bytes into the answer's, with endless budgets.
func Handle(r *Responder, b []byte) []byte {
	l := newLoop(r, slog.New(slog.DiscardHandler), rate.Inf, rate.Inf)
	out, _ := l.handle(context.Background(), b)
	return out
}

// Flood hands each packet over n times, one after the other, and returns how many got an answer.
func Flood(r *Responder, n int, packets ...[]byte) (answers []int) {
	l := newLoop(r, slog.New(slog.DiscardHandler), strayRate, knownRate)
	for _, b := range packets {
		got := 0
		for range n {
			if out, _ := l.handle(context.Background(), b); out != nil {
				got++
			}
		}
		answers = append(answers, got)
	}
	return answers
}
