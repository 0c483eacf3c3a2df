package rest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/internal/testring"
)

// lxc runs the real client of LXD against the server and returns what it printed and its exit code.
func (w *world) lxc(stdin string, args ...string) (out string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "lxc", args...)
	cmd.Env = append(os.Environ(), "LXD_DIR="+w.dir, "HOME="+w.dir, "LXD_SOCKET=", "LXD_CONF=")
	cmd.Stdin = strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		w.t.Fatalf("lxc %v: %v", args, err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func TestTheRealClient(t *testing.T) {
	testring.Need(t, 2, testring.Binary("lxc"))
	w := withInstances(t)
	w.started()
	w.lxc("", "version") // the first run of a client greets its user
	for _, c := range []struct {
		args  string
		stdin string
		code  int
		want  string
	}{
		{"version", "", 0, "Server version: test"},
		{"info", "", 0, "api_extensions:"},
		{"query /1.0/projects", "", 0, "/1.0/projects/default"},
		{"query /1.0/nope", "", 1, "Error: not found"},
		{"project list", "", 0, "default (current)"},
		{"project create foo", "", 0, "Project foo created"},
		{"project create foo", "", 1, "already exists"},
		{"project delete foo", "", 0, "Project foo deleted"},
		{"operation list", "", 0, "DESCRIPTION"},
		{"warning list", "", 0, "UUID"},
		{"profile list -f csv", "", 0, "default,"},
		{"profile set default user.a=b", "", 0, ""},
		{"profile get default user.a", "", 0, "b"},
		{"profile delete default", "", 1, `The "default" profile cannot be deleted`},
		{"list -f csv -c ns", "", 0, "c1,RUNNING"},
		{"list c1 -f csv -c nstpSD", "", 0, "c1,RUNNING,CONTAINER,"},
		{"list nothing -f csv -c n", "", 0, ""},
		{"list -f json", "", 0, `"name":"c1"`},
		{"info c1", "", 0, "Status: RUNNING"},
		{"info zz", "", 1, "Error: Instance not found"},
		{"exec c1 -- echo hi", "", 0, "hi"},
		{"exec c1 -- cat", "through", 0, "through"},
		{"exec c1 -- false", "", 1, ""},
		{"exec c1 -- no-such-command", "", 127, ""},
		{"config set c1 user.x=y", "", 0, ""},
		{"config get c1 user.x", "", 0, "y"},
		{"config set c1 nope=y", "", 1, "nknown configuration key"},
		{"pause c1", "", 0, ""},
		{"list -f csv -c s", "", 0, "FROZEN"},
		{"start c1", "", 0, ""},
		{"restart -f c1", "", 0, ""},
		{"console c1 --show-log", "", 0, "shoal-test-ready"},
		{"stop -f c1", "", 0, ""},
		{"stop c1", "", 1, "already stopped"},
		{"rename c1 c2", "", 0, ""},
		{"init --empty c3", "", 0, "Creating c3"},
		{"delete c2 c3", "", 0, ""},
		{"list -f csv -c n", "", 0, ""},
	} {
		out, code := w.lxc(c.stdin, strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.want) || (c.want == "" && c.code == 0 && strings.Contains(out, "Error")) {
			t.Errorf("lxc %s: exit %d, want %d with %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
}
