package config_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/errs"
)

func TestRlimits(t *testing.T) {
	cfg := api.Config{"limits.kernel.nofile": "3000:4000", "limits.kernel.as": "unlimited", "limits.kernel.core": "0", "limits.kernel.cpu": "7:unlimited"}
	want := []driver.Rlimit{
		{Name: "as", Soft: driver.Unlimited, Hard: driver.Unlimited}, {Name: "core"}, {Name: "cpu", Soft: 7, Hard: driver.Unlimited}, {Name: "nofile", Soft: 3000, Hard: 4000},
	}
	if err := config.Check(cfg, api.TypeContainer, true); err != nil {
		t.Error(err)
	}
	if got := config.Rlimits(cfg); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := config.Rlimits(nil); got != nil {
		t.Errorf("without keys: %v", got)
	}
	for v, want := range map[string]string{
		"-1": "must be a number such as 100", "5:": "must be a number", ":5": "must be a number", "1:2:3": "must be a number", "10MB": "must be a number",
		"9:8": "the soft limit is higher than the hard limit", "unlimited:8": "the soft limit is higher", "18446744073709551615": "must be a number", "Unlimited": "must be a number",
	} {
		err := config.Check(api.Config{"limits.kernel.nofile": v}, api.TypeContainer, true)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "limits.kernel.nofile") || errs.ClassOf(err) != errs.InvalidInput {
			t.Errorf("%q: %v (%v)", v, err, errs.ClassOf(err))
		}
	}
}

func FuzzRlimits(f *testing.F) {
	f.Add("100:200")
	f.Fuzz(func(t *testing.T, v string) {
		cfg := api.Config{"limits.kernel.nproc": v}
		if v == "" || config.Check(cfg, api.TypeContainer, true) != nil {
			return
		}
		if got := config.Rlimits(cfg); len(got) != 1 || got[0].Soft > got[0].Hard {
			t.Fatalf("%q was accepted: %v", v, got)
		}
	})
}
