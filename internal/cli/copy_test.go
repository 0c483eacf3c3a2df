package cli_test

import (
	"strings"
	"testing"
)

func TestCopySaysWhatDiffers(t *testing.T) {
	f := newFake(t)
	run(t, f, "", "copy", "c1/s1", "c9", "-c", "user.b=2", "--no-profiles", "--instance-only")
	for _, want := range []string{`POST /1.0/instances `, `"name":"c9"`, `"config":{"user.b":"2"}`, `"profiles":[]`, `"source":"c1/s1"`, `"instance_only":true`} {
		if got := f.requests(); !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
	f = newFake(t)
	_, stderr, code := run(t, f, "", "copy", "c1", "c9", "-p", "default", "--no-profiles")
	if code != 2 || !strings.Contains(stderr, "--no-profiles") || f.requests() != "" {
		t.Errorf("got %d %q %s", code, stderr, f.requests())
	}
}
