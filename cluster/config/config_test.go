package config_test

import (
	"testing"
	"time"

	"github.com/shoal-project/shoal/cluster/config"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/state"
)

func TestReplaceAndMerge(t *testing.T) {
	s, err := config.New(config.Deps{State: state.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	if s.ShutdownWait() != 5*time.Minute {
		t.Errorf("default wait %v", s.ShutdownWait())
	}
	if err := s.Replace(t.Context(), map[string]any{"user.a": "1", "user.b": true, config.ShutdownTimeout: float64(2)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Merge(t.Context(), map[string]any{"user.a": "2", "user.b": ""}); err != nil {
		t.Fatal(err)
	}
	if got := s.Get(); len(got) != 2 || got["user.a"] != "2" || got[config.ShutdownTimeout] != "2" || s.ShutdownWait() != 2*time.Minute {
		t.Errorf("got %v", got)
	}
	if err := s.Replace(t.Context(), nil); err != nil || len(s.Get()) != 0 {
		t.Errorf("got %v, %v", s.Get(), err)
	}
}

func TestRefused(t *testing.T) {
	s, err := config.New(config.Deps{State: state.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key   string
		value any
		class errs.Class
		text  string
	}{
		"unknown":       {"foo.bar", "x", errs.InvalidInput, "cannot set 'foo.bar' to 'x': unknown key"},
		"not yet":       {"core.bgp_asn", "1", errs.UnsupportedClass, ""},
		"not a number":  {config.ShutdownTimeout, "soon", errs.InvalidInput, ""},
		"negative":      {config.ShutdownTimeout, "-1", errs.InvalidInput, ""},
		"object":        {"user.a", map[string]any{}, errs.InvalidInput, ""},
		"bare user dot": {"user.", "x", errs.InvalidInput, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := s.Merge(t.Context(), map[string]any{"user.ok": "1", c.key: c.value})
			if !errs.Is(err, c.class) || (c.text != "" && err.Error() != c.text) {
				t.Errorf("got %v", err)
			}
			if len(s.Get()) != 0 {
				t.Errorf("half of it was stored: %v", s.Get())
			}
		})
	}
	if err := s.Merge(t.Context(), map[string]any{"core.https_address": ""}); err != nil {
		t.Errorf("clearing a key that is not set: %v", err)
	}
}
