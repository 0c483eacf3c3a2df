// Package meter registers metrics that many values of a process share: there is one series for each scope, and who comes second
// counts in what the first one registered.
package meter

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Seconds are the buckets of all durations of calls to the database: 0.1 ms to 6.5 s.
func Seconds() []float64 { return prometheus.ExponentialBuckets(0.0001, 4, 9) }

// Register registers c, or returns what was registered with the same name and labels before. It fails when that is of another type.
func Register[T prometheus.Collector](reg prometheus.Registerer, c T) (T, error) {
	err := reg.Register(c)
	var had prometheus.AlreadyRegisteredError
	if !errors.As(err, &had) {
		return c, err
	}
	if same, ok := had.ExistingCollector.(T); ok {
		return same, nil
	}
	return c, fmt.Errorf("a metric of another type has that name: %w", err)
}
