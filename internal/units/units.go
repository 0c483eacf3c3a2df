// Package units reads and writes sizes, rates and expiry times exactly as LXD and Incus do, so that a value that is
// valid there is valid here and means the same.
//
// "10MB" is 10·1000², "10MiB" is 10·1024²; there are no fractions and no spaces. Errors say what is allowed and have a
// method BadInput, which gives them the class errs.InvalidInput.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// badValue is an error about input; errs.ClassOf knows it by its method.
type badValue struct{ text string }

func (e badValue) Error() string { return e.text }
func (badValue) BadInput()       {}

func bad(format string, a ...any) error { return badValue{fmt.Sprintf(format, a...)} }

const allowedBytes = "a whole number with one of the suffixes B, kB, MB, GB, TB, PB, EB, KiB, MiB, GiB, TiB, PiB, EiB or none"

// ParseBytes reads a size in bytes, for example "10GiB"; empty is 0. Negative sizes and sizes beyond 8 EiB-1 are refused.
func ParseBytes(s string) (int64, error) {
	return parse(s, "size", allowedBytes, map[string]int64{
		"": 1, "B": 1, " bytes": 1,
		"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15, "EB": 1e18,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50, "EiB": 1 << 60,
	})
}

const allowedBits = "a whole number with one of the suffixes bit, kbit, Mbit, Gbit, Tbit, Pbit, Ebit, Kibit, Mibit, Gibit, Tibit, Pibit, Eibit or none"

// ParseBits reads a rate in bits per second, for example "100Mbit"; empty is 0.
func ParseBits(s string) (int64, error) {
	return parse(s, "rate", allowedBits, map[string]int64{
		"": 1, "bit": 1,
		"kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9, "Tbit": 1e12, "Pbit": 1e15, "Ebit": 1e18,
		"Kibit": 1 << 10, "Mibit": 1 << 20, "Gibit": 1 << 30, "Tibit": 1 << 40, "Pibit": 1 << 50, "Eibit": 1 << 60,
	})
}

func parse(s, what, allowed string, suffixes map[string]int64) (int64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimLeft(s, "0123456789")
	number, suffix := s[:len(s)-len(digits)], digits
	factor, ok := suffixes[suffix]
	if !ok || number == "" {
		return 0, bad("invalid %s %q: allowed is %s", what, s, allowed)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return 0, bad("invalid %s %q: too large", what, s)
	}
	return n * factor, nil
}

// ParseBytesOrPercent reads a size, or a percentage of total such as "5%" (1–100, whole numbers).
func ParseBytesOrPercent(s string, total int64) (int64, error) {
	number, ok := strings.CutSuffix(s, "%")
	if !ok {
		return ParseBytes(s)
	}
	p, err := ParsePercent(number + "%")
	if err != nil {
		return 0, err
	}
	return total/100*p + total%100*p/100, nil
}

// ParsePercent reads a percentage, "1%" to "100%".
func ParsePercent(s string) (int64, error) {
	number, ok := strings.CutSuffix(s, "%")
	p, err := strconv.ParseUint(number, 10, 8)
	if !ok || err != nil || p < 1 || p > 100 || number[0] == '+' {
		return 0, bad("invalid percentage %q: allowed is 1%% to 100%%", s)
	}
	return int64(p), nil
}

// FormatBytes writes a size with the decimal unit that fits, for example "1.50GB"; below 1000 it is "999B".
func FormatBytes(n int64, precision int) string {
	return format(n, precision, 1000, []string{"kB", "MB", "GB", "TB", "PB", "EB"})
}

// FormatBytesIEC writes a size with the binary unit that fits, for example "1.50GiB"; below 1024 it is "1023B".
func FormatBytesIEC(n int64, precision int) string {
	return format(n, precision, 1024, []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"})
}

func format(n int64, precision int, step float64, names []string) string {
	if n < int64(step) {
		return fmt.Sprintf("%dB", n)
	}
	v := float64(n)
	for _, name := range names {
		v /= step
		if v < step {
			return fmt.Sprintf("%.*f%s", precision, v, name)
		}
	}
	return fmt.Sprintf("%.*f%s", precision, v, names[len(names)-1])
}

// AddExpiry returns from plus an expiry expression: numbers with the units S (seconds), M (minutes), H (hours), d (days),
// w (weeks), m (months) and y (years), separated by spaces, each unit at most once, for example "1d 12H". An empty
// expression gives the zero time, which means never.
func AddExpiry(from time.Time, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	n := map[byte]int{}
	for _, field := range strings.Fields(s) {
		unit := field[len(field)-1]
		v, err := strconv.ParseUint(field[:len(field)-1], 10, 16)
		_, twice := n[unit]
		if err != nil || twice || strings.IndexByte("SMHdwmy", unit) < 0 {
			return time.Time{}, bad("invalid expiry %q: allowed are numbers with the units S, M, H, d, w, m and y, each once, such as \"1d 12H\"", s)
		}
		n[unit] = int(v)
	}
	if len(n) == 0 {
		return time.Time{}, bad("invalid expiry %q: it has no number", s)
	}
	clock := time.Duration(n['S'])*time.Second + time.Duration(n['M'])*time.Minute + time.Duration(n['H'])*time.Hour
	return from.AddDate(n['y'], n['m'], n['d']+7*n['w']).Add(clock), nil
}
