package errs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/shoal-project/shoal/internal/errs"
)

func TestClassSurvivesWrapping(t *testing.T) {
	err := fmt.Errorf("start c1: %w", fmt.Errorf("attach eth0: %w", errs.NotFound("network %q", "br9")))
	if !errs.IsNotFound(err) || errs.ClassOf(err) != errs.NotFoundClass {
		t.Fatalf("class lost: %v", errs.ClassOf(err))
	}
	if want := `start c1: attach eth0: network "br9"`; err.Error() != want {
		t.Fatalf("text %q, want %q", err, want)
	}
}

func TestOutermostClassWins(t *testing.T) {
	err := errs.Classify(errs.InvalidInput, errs.NotFound("alias %q", "x"))
	if errs.ClassOf(err) != errs.InvalidInput {
		t.Fatalf("got %v", errs.ClassOf(err))
	}
}

func TestUnclassified(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want errs.Class
	}{
		{errors.New("x"), errs.Internal},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), errs.UnavailableClass},
		{context.Canceled, errs.UnavailableClass},
	} {
		if got := errs.ClassOf(tt.err); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.err, got, tt.want)
		}
	}
	if errs.Is(nil, errs.Internal) || errs.Classify(errs.Denied, nil) != nil {
		t.Error("nil is no error of any class")
	}
}

func TestHTTPStatusRoundTrip(t *testing.T) {
	for c := errs.Internal; c <= errs.UnsupportedClass; c++ {
		s := errs.HTTPStatus(c)
		back := errs.FromHTTPStatus(s)
		if errs.HTTPStatus(back) != s {
			t.Errorf("%v → %d → %v", c, s, back)
		}
		if c != errs.Internal && s == http.StatusInternalServerError {
			t.Errorf("%v has no status", c)
		}
	}
}
