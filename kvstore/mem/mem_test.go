package mem_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/kvstore"
	"github.com/shoal-project/shoal/kvstore/kvtest"
	"github.com/shoal-project/shoal/kvstore/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	kvtest.Run(t, 200*time.Millisecond, func(t *testing.T) kvstore.Backend {
		s := mem.New()
		t.Cleanup(func() { s.Close() })
		return s
	})
}

func TestConformanceWithFaults(t *testing.T) {
	kvtest.RunWithFaults(t, 200*time.Millisecond, func(t *testing.T) kvstore.Backend {
		s := mem.New()
		t.Cleanup(func() { s.Close() })
		return s
	})
}
