// Package clock is where the house gets its time from. Services take a [Clock] in their Deps, so
// that tests decide what time it is; testing/synctest works with [Real].
package clock

import "time"

// Clock tells the time. Implementations are safe for concurrent use.
type Clock interface {
	Now() time.Time
}

// Real is the clock of the machine.
type Real struct{}

// Now returns the current time in UTC.
func (Real) Now() time.Time { return time.Now().UTC() }
