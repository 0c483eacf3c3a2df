package kvtest

import (
	"slices"
	"time"
)

// Percentile returns the p-th percentile of what was measured; it sorts d.
func Percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*p/100)]
}
