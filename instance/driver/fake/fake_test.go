package fake_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/driver/drivertest"
	"github.com/shoal-project/shoal/instance/driver/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDriver(t *testing.T) {
	var n atomic.Int64
	drivertest.Run(t, func(*testing.T) drivertest.Harness {
		h := fake.NewHost()
		return drivertest.Harness{
			New:   func(_ *testing.T, deps driver.Deps) driver.Driver { return fake.New(h, deps) },
			Close: func(d driver.Driver) { d.(*fake.Driver).Close() },
			Spec: func(*testing.T) driver.Spec {
				return driver.Spec{ID: fmt.Sprintf("c%d", n.Add(1)), Dir: "/nowhere", LogDir: "/nowhere"}
			},
		}
	})
}
