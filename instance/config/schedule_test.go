package config_test

import (
	"slices"
	"testing"
	"time"

	"github.com/shoal-project/shoal/instance/config"
)

func TestSchedule(t *testing.T) {
	noon := time.Date(2030, 3, 4, 12, 0, 30, 0, time.UTC) // a Monday
	for expr, due := range map[string]bool{
		"": false, "@never": false, "0 12 * * *": true, "0 13 * * *": false, "5 12 * * *, 0 12 * * 1": true, "0,30 12 * * *": true,
		"@startup": false, "*/7 12 * * 2": false,
	} {
		s, err := config.ParseSchedule(expr, "id")
		if err != nil || s.Due(noon) != due {
			t.Errorf("%q: due %v, %v", expr, s.Due(noon), err)
		}
	}
	for _, bad := range []string{"x", "@reboot", "@every 1s", "* * * *", "* * * * * *", "61 * * * *", "TZ=UTC * * * * *", "@daily,@hourly"} {
		if _, err := config.ParseSchedule(bad, ""); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	hits := map[string]int{}
	for _, word := range []string{"@hourly", "@daily"} {
		s, err := config.ParseSchedule(word, "some-instance")
		if err != nil {
			t.Fatal(err)
		}
		for m := range 24 * 60 {
			if s.Due(noon.Add(time.Duration(m) * time.Minute)) {
				hits[word]++
			}
		}
	}
	if hits["@hourly"] != 24 || hits["@daily"] != 1 {
		t.Errorf("in a day: %v", hits)
	}
}

func TestSnapshotName(t *testing.T) {
	now := time.Date(2030, 3, 4, 5, 6, 7, 0, time.UTC)
	have := []string{"snap0", "snap7", "snapx", "day", "day-0"}
	for pattern, want := range map[string]string{
		"": "snap8", "s%d": "s0", "day": "day-1", "x-{{ creation_date }}": "x-2030-03-04_05-06-07",
		"{{creation_date|date:'2006-01-02'}}-%d": "2030-03-04-0",
	} {
		got, err := config.SnapshotName(pattern, now, func(n string) bool { return slices.Contains(have, n) }, have)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", pattern, got, err, want)
		}
	}
	for _, bad := range []string{"%d%d", "%s", "100%", "{{ x }}", "{% if %}"} {
		if n, err := config.SnapshotName(bad, now, func(string) bool { return false }, nil); err == nil {
			t.Errorf("%q gave %q", bad, n)
		}
	}
}

func FuzzSnapshotName(f *testing.F) {
	f.Add("snap%d", "snap1")
	f.Add("{{ creation_date|date:'2006' }}", "x")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		got, err := config.SnapshotName(pattern, time.Unix(0, 0), func(n string) bool { return n == name }, []string{name})
		if err == nil && got == name {
			t.Errorf("%q: the name %q is taken", pattern, got)
		}
	})
}

func FuzzSchedule(f *testing.F) {
	f.Add("@daily, */5 * * * *")
	f.Fuzz(func(t *testing.T, expr string) {
		if s, err := config.ParseSchedule(expr, "id"); err == nil {
			s.Due(time.Unix(1e9, 0))
		}
	})
}
