package driver

import "github.com/shoal-project/shoal/internal/units"

// ParseSize reads a size such as "10GiB" in bytes; empty is 0.
func ParseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	return units.ParseBytes(s)
}
