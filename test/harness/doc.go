// Package harness is a real daemon for tests: built from this source, in namespaces of its own (processes, mounts,
// network) and a directory of its own, with a small image. Whatever a test does, everything ends with it.
//
//	bin := harness.Build(t)        our programs and the image, built once for all tests of a package
//	w := harness.New(t, bin)       a world without a daemon
//	w.Start()                      … with one; Stop, Kill and Start again
//	w.Do("GET", "/1.0", nil)       its API; Client("lxc", "list") real clients
//	w.Check(t)                     compares its records with what is on the host
package harness

import "testing"

// Must ends the test when there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
