package api

import "time"

// Time is a point in time on the wire: RFC 3339, the zero value is "0001-01-01T00:00:00Z".
type Time = time.Time
