package units_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/units"
)

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]int64{
		"": 0, "0": 0, "5": 5, "10B": 10, "10 bytes": 10, "1kB": 1000, "10MB": 10_000_000, "10MiB": 10 << 20,
		"10GB": 10_000_000_000, "10GiB": 10 << 30, "2TB": 2e12, "2TiB": 2 << 40, "3PB": 3e15, "3PiB": 3 << 50,
		"9EB": 9e18, "7EiB": 7 << 60, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := units.ParseBytes(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"MB", "B", "-1", "-5MB", "+5", "1.5GB", "10 MB", " 10MB", "10MB ", "10mb", "10K", "10M", "10G", "10KB", "8EiB", "10EB",
		"9223372036854775808", "99999999999999999999", "10MB\n", "0x10", "1e3", "٣", "5%", "unlimited", "\x00",
	} {
		got, err := units.ParseBytes(in)
		if !errs.Is(err, errs.InvalidInput) || got != 0 {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	if _, err := units.ParseBytes("10X"); !strings.Contains(err.Error(), `"10X"`) || !strings.Contains(err.Error(), "GiB") {
		t.Errorf("text %q", err)
	}
}

func TestParseBits(t *testing.T) {
	for in, want := range map[string]int64{
		"": 0, "7": 7, "7bit": 7, "1kbit": 1000, "100Mbit": 1e8, "1Gbit": 1e9, "1Kibit": 1024, "1Mibit": 1 << 20, "1Gibit": 1 << 30, "1Tbit": 1e12, "1Ebit": 1e18,
	} {
		if got, err := units.ParseBits(in); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"10MB", "10mbit", "Mbit", "-1Mbit", "10Ebit", "1 Mbit"} {
		if got, err := units.ParseBits(in); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
}

func TestPercent(t *testing.T) {
	for _, tt := range []struct {
		in    string
		total int64
		want  int64
	}{{"5%", 1000, 50}, {"100%", math.MaxInt64, math.MaxInt64}, {"1%", 199, 1}, {"10MB", 1, 10_000_000}, {"33%", 1000, 330}} {
		if got, err := units.ParseBytesOrPercent(tt.in, tt.total); err != nil || got != tt.want {
			t.Errorf("%q of %d: %d, %v, want %d", tt.in, tt.total, got, err, tt.want)
		}
	}
	for _, in := range []string{"%", "0%", "101%", "-1%", "+5%", "5%%", "1.5%", "5 %", "257%", "5"} {
		if got, err := units.ParsePercent(in); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
}

func TestFormatBytes(t *testing.T) {
	for _, tt := range []struct {
		n    int64
		si   string
		iec  string
		prec int
	}{
		{0, "0B", "0B", 2}, {999, "999B", "999B", 2}, {1000, "1.00kB", "1000B", 2}, {1024, "1.02kB", "1.00KiB", 2},
		{1_500_000, "1.50MB", "1.43MiB", 2}, {10 << 30, "10.74GB", "10.00GiB", 2}, {1 << 40, "1TB", "1TiB", 0},
		{math.MaxInt64, "9.2EB", "8.0EiB", 1},
	} {
		if got := units.FormatBytes(tt.n, tt.prec); got != tt.si {
			t.Errorf("%d: %s, want %s", tt.n, got, tt.si)
		}
		if got := units.FormatBytesIEC(tt.n, tt.prec); got != tt.iec {
			t.Errorf("%d: %s, want %s", tt.n, got, tt.iec)
		}
	}
}

func TestAddExpiry(t *testing.T) {
	from := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"":               {},
		"30M":            from.Add(30 * time.Minute),
		"3H":             from.Add(3 * time.Hour),
		"1d 12H":         from.AddDate(0, 0, 1).Add(12 * time.Hour),
		"2w 5S":          from.AddDate(0, 0, 14).Add(5 * time.Second),
		"1y 2m 3d 4H 5M": from.AddDate(1, 2, 3).Add(4*time.Hour + 5*time.Minute),
	} {
		if got, err := units.AddExpiry(from, in); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{" ", "d", "1", "1x", "1d 2d", "-1d", "99999999d", "1.5H", "1d,2H"} {
		if got, err := units.AddExpiry(from, in); !errs.Is(err, errs.InvalidInput) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"10MB", "5%", "1d 12H", "100Mbit", "-1", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := units.ParseBytes(s); n < 0 || (err != nil) != errs.Is(err, errs.InvalidInput) {
			t.Errorf("bytes %q: %d, %v", s, n, err)
		}
		if n, err := units.ParseBits(s); n < 0 || (err != nil) != errs.Is(err, errs.InvalidInput) {
			t.Errorf("bits %q: %d, %v", s, n, err)
		}
		if n, err := units.ParseBytesOrPercent(s, 1<<40); n < 0 || (err != nil) != errs.Is(err, errs.InvalidInput) {
			t.Errorf("percent %q: %d, %v", s, n, err)
		}
		from := time.Unix(0, 0)
		if at, err := units.AddExpiry(from, s); err == nil && !at.IsZero() && at.Before(from) {
			t.Errorf("expiry %q: %v", s, at)
		}
	})
}
