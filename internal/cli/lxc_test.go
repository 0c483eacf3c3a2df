package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-project/shoal/internal/cli"
	"github.com/shoal-project/shoal/internal/testring"
)

// run runs our client against a fake.
func run(t *testing.T, f *fake, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	t.Setenv("SHOAL_SOCKET", f.socket)
	var out, errOut bytes.Buffer
	code = cli.Main(t.Context(), "0.1", args, cli.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errOut})
	return out.String(), errOut.String(), code
}

// lxc runs Debian's client against the same fake.
func lxc(t *testing.T, f *fake, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// With a configuration lxc does not greet its user.
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".config/lxc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".config/lxc/config.yml"), []byte("default-remote: local\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "lxc", args...)
	cmd.Env = append(os.Environ(), "LXD_SOCKET="+f.socket, "LXD_DIR="+filepath.Dir(f.socket), "HOME="+home)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// Both clients print the same, to the byte, and end with the same code.
func TestPrintsWhatLXCPrints(t *testing.T) {
	testring.Need(t, 2, testring.Binary("lxc"))
	for _, line := range []string{
		"list", "list -f csv", "list -f compact", "list --fast", "list -f yaml", "list -f json", "list c2", "list u.note=a.*",
		"list -c 46abcdDefFlmMnNpPsStu -f csv", "list -c 46abcdDefFlmMnNpPsStu", "list -c n,user.note:Note:1,config:image.os,devices:root.pool:Pool,user.note", "list -c n,user.note -f compact", "list nope", "list --all-projects",
		"info c1", "info c2", "info c1 --show-log", "info nope", "info",
		"image list", "image list -c lLfFpdatsu -f csv", "image list -f compact", "image list -f yaml", "image list os=Debian", "image list -f json", "image show deb", "image info deb", "image alias list", "image alias list -f csv", "image get-property deb os",
		"profile list", "profile list -f json", "profile show default", "profile get default user.a", "profile device show default", "profile device get default root pool",
		"network list", "network list -f yaml", "network show br0", "network info br0", "network list-leases br0", "network get br0 ipv4.address",
		"storage list", "storage show default", "storage info default", "storage info default --bytes", "storage get default source", "storage show default --resources", "storage volume list default", "storage volume show default data",
		"project list", "project show default", "operation list", "operation show 0fa1", "warning list", "warning list -f csv",
		"config show c1", "config show c1 --expanded", "config get c1 user.note", "config get c1 nope", "config show", "config get core.debug", "config device list c2", "config device show c2", "config device get c2 data path",
		"console c1 --show-log", "file pull c1/etc/hosts -", "query /1.0/profiles/default", "query --raw /1.0/projects/default", "query /1.0/nope",
		"config unset c1 nope", "config device remove c1 root", "config device remove c2 nope", "config device add c2 data disk source=/x path=/y",
	} {
		t.Run(line, func(t *testing.T) {
			f := newFake(t)
			args := strings.Fields(line)
			wantOut, wantErr, wantCode := lxc(t, f, "", args...)
			out, errOut, code := run(t, f, "", args...)
			if diff := cmp.Diff(sortMaps(wantOut), sortMaps(out)); diff != "" {
				t.Errorf("stdout differs (-lxc +shoal)\n%s", diff)
			}
			if strings.TrimSpace(errOut) != strings.TrimSpace(wantErr) || code != wantCode {
				t.Errorf("lxc: %d %s\nshoal: %d %s", wantCode, wantErr, code, errOut)
			}
		})
	}
}

// sortMaps returns the lines of an output with what stands below "Network usage:" and "Properties:" in the order of
// the names: lxc prints both in the order of a Go map, another one each time.
func sortMaps(out string) []string {
	var lines []string
	var entries [][]string
	inside := false
	for line := range strings.SplitSeq(out, "\n") {
		switch {
		case inside && strings.HasPrefix(line, "      "):
			entries[len(entries)-1] = append(entries[len(entries)-1], line)
			continue
		case inside && strings.HasPrefix(line, "    "):
			entries = append(entries, []string{line})
			continue
		}
		slices.SortFunc(entries, slices.Compare)
		lines, entries = append(lines, slices.Concat(entries...)...), nil
		lines = append(lines, line)
		inside = line == "  Network usage:" || line == "Properties:"
	}
	return lines
}

var progressLine = regexp.MustCompile("\r[^\r\n]*")

// Both clients ask the server for the same changes.
func TestAsksWhatLXCAsks(t *testing.T) {
	testring.Need(t, 2, testring.Binary("lxc"))
	for _, line := range []string{
		"start c2", "stop c1", "stop c1 --force --timeout 3", "restart c1", "pause c1", "delete c1 --force", "delete c2", "delete c1",
		"config set c1 user.a=1 user.b=2", "config set c1 user.a 1", "config unset c1 user.note", "config device add c1 data disk source=/srv path=/data", "config device remove c2 data", "config device set c2 data path=/x",
		"config device override c1 root size=5GiB", "config set core.debug=2", "config set core.debug 3",
		"profile create p1", "profile delete default", "profile set default user.a=2", "profile add c1 db", "profile remove c1 web", "profile assign c1 a,b", "profile copy default p2", "profile device add default x disk source=/a path=/b",
		"network create br1 ipv4.nat=true", "network delete br0", "network set br0 ipv4.nat=true", "network attach br0 c1 eth1", "network detach br0 c1", "network unset br0 ipv6.address",
		"storage create p2 dir source=/x", "storage delete default", "storage set default rsync.bwlimit=1",
		"project create p3 -c features.images=false", "project delete default", "operation delete 0fa1", "image alias create a1 5f1c0b7e3d2a4968b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c0d1e2f3a4", "image alias delete deb", "image alias rename deb x", "image delete deb",
		"init deb web", "init deb web -c user.x=1 -p default -p web -e -s default -n br0", "init deb web --no-profiles -d root,size=5GiB", "init deb", "launch deb web", "init web --empty", "start broken", "rename c2 c3",
		"file delete c1/etc/hosts", "query -X POST -d {\"a\":1} /1.0/projects", "file push -r dir c1/srv", "file push main_data c1/srv/x --mode 0600 -p",
	} {
		t.Run(line, func(t *testing.T) {
			theirs, ours := newFake(t), newFake(t)
			args := strings.Fields(line)
			t.Chdir(dirWithFile(t))
			wantOut, wantErr, wantCode := lxc(t, theirs, "", args...)
			out, errOut, code := run(t, ours, "", args...)
			// lxc shows its progress even where nobody looks.
			wantOut = progressLine.ReplaceAllString(wantOut, "")
			if out != wantOut || strings.TrimSpace(errOut) != strings.TrimSpace(wantErr) || code != wantCode {
				t.Errorf("lxc: %d %q %q\nshoal: %d %q %q", wantCode, wantOut, wantErr, code, out, errOut)
			}
			if a, b := normal(theirs.requests()), normal(ours.requests()); a != b {
				t.Errorf("requests differ\nlxc:\n%s\nshoal:\n%s", a, b)
			}
		})
	}
}

// dirWithFile makes a directory with things to push.
func dirWithFile(t *testing.T) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main_data"), []byte("data"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "dir", "sub"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "dir", "sub", "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// normal removes from the bodies of requests what means nothing: the order of keys, nulls and zero values. An
// empty list stays: no profiles is not the same as the default profile.
func normal(requests string) string {
	var out []string
	for line := range strings.Lines(requests) {
		line = strings.TrimSpace(line)
		if i := strings.IndexByte(line, '{'); i > 0 {
			var v any
			if json.Unmarshal([]byte(line[i:]), &v) == nil {
				body, _ := json.Marshal(strip(v))
				line = line[:i] + string(body)
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func strip(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			switch y := strip(e).(type) {
			case nil:
				delete(x, k)
			case string:
				if y == "" || y == "0001-01-01T00:00:00Z" {
					delete(x, k)
				}
			case bool:
				if !y {
					delete(x, k)
				}
			case float64:
				if y == 0 {
					delete(x, k)
				}
			case map[string]any:
				if len(y) == 0 {
					delete(x, k)
				}
			}
		}
		return x
	case []any:
		for i := range x {
			x[i] = strip(x[i])
		}
	}
	return v
}
