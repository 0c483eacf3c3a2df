package oci_test

import (
	"testing"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/driver/drivertest"
	"github.com/shoal-project/shoal/instance/oci"
)

func TestDriver(t *testing.T) {
	needHost(t)
	for _, tt := range []struct {
		name string
		ids  driver.IDMap
	}{
		{"unprivileged", driver.IDMap{Base: 1000000, Size: 65536}},
		{"privileged", driver.IDMap{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			drivertest.Run(t, func(t *testing.T) drivertest.Harness {
				p := newPlace(t)
				p.ids = tt.ids
				return drivertest.Harness{
					New:   func(t *testing.T, deps driver.Deps) driver.Driver { return p.open(t, deps) },
					Close: func(d driver.Driver) { d.(*oci.Driver).Close() },
					Spec:  func(t *testing.T) driver.Spec { return p.spec(t) },
				}
			})
		})
	}
}
