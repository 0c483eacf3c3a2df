package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-project/shoal/internal/cli"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		name, line string
		code       int
		stderr     string
	}{
		{"success", "list", 0, ""},
		{"server error", "info nope", 1, "Error: not found"},
		{"operation error", "stop broken", 1, "Error: it is broken\nTry `shoal info --show-log broken` for more info"},
		{"unknown command", "lst", 2, `unknown command "lst"`},
		{"unknown subcommand", "image lst", 2, `unknown command "lst"`},
		{"unknown flag", "list --nope", 2, "unknown flag: --nope"},
		{"too few arguments", "config device add c1", 2, "Invalid number of arguments"},
		{"bad format", "list -f xml", 2, `Invalid format "xml"`},
		{"bad column", "list -c nX", 2, "Unknown column shorthand char 'X'"},
		{"bad pair", "network create br1 x", 2, `Invalid argument "x": it has to be key=value`},
		{"other server", "list faraway:", 1, `The remote "faraway" doesn't exist`},
		{"bad mode", "file push go.mod c1/x --mode 9", 2, `Invalid mode "9"`},
		{"bad path", "file delete c1", 2, "it has to be <instance>/<path>"},
		{"exec modes", "exec c1 -t -T -- true", 2, "You can't pass -t and -T"},
		{"target", "config show c1 --target x", 1, "has to be a cluster"},
		{"init without choice", "admin init", 2, "either --auto or --minimal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := strings.Replace(tc.stderr, "has to be a cluster", "the destination remote must be a cluster", 1)
			_, stderr, code := run(t, newFake(t), "", strings.Fields(tc.line)...)
			if code != tc.code || !strings.Contains(stderr, want) || (want == "" && stderr != "") {
				t.Errorf("got %d %q, want %d %q", code, stderr, tc.code, want)
			}
		})
	}
}

func TestNoDaemonSaysWhatToDo(t *testing.T) {
	t.Setenv("SHOAL_SOCKET", "")
	t.Setenv("SHOAL_DIR", t.TempDir())
	var out, errOut bytes.Buffer
	code := cli.Main(t.Context(), "0.1", []string{"list"}, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errOut})
	if code != 1 || !strings.Contains(errOut.String(), "Is shoald running?") || !strings.Contains(errOut.String(), os.Getenv("SHOAL_DIR")) {
		t.Errorf("got %d %q", code, errOut.String())
	}
}

func TestListFilters(t *testing.T) {
	for _, tc := range []struct{ filter, want string }{
		{"c", "c1 c2"}, {"c1", "c1"}, {".*2$", "c2"}, {"status=running", "c1"}, {"status=stopped,running", "c1 c2"}, {"type=virtual-machine", ""},
		{"ipv4=10.0.0.7", "c1"}, {"ipv4=10.0.0.0/24", "c1"}, {"ipv6=fd00::/64", "c1"}, {"ipv4=10.1.0.0/16", ""},
		{"user.note=a b", "c1"}, {"u.n=a.*", "c1"}, {"image.os=Debian", "c1"}, {"c1 status=stopped", ""}, {"[", ""},
	} {
		t.Run(tc.filter, func(t *testing.T) {
			args := []string{"list", "-c", "n", "-f", "csv"}
			if tc.filter == "user.note=a b" {
				args = append(args, tc.filter)
			} else {
				args = append(args, strings.Fields(tc.filter)...)
			}
			out, stderr, code := run(t, newFake(t), "", args...)
			if got := strings.Join(strings.Fields(out), " "); got != tc.want || code != 0 {
				t.Errorf("got %q %q, want %q", got, stderr, tc.want)
			}
		})
	}
}

func TestInitFillsInWhatIsMissing(t *testing.T) {
	f := newFake(t)
	out, stderr, code := run(t, f, "", "admin", "init", "--auto")
	if code != 0 || f.requests() != "" {
		t.Errorf("a server that has everything was changed: %d %s %s\n%s", code, out, stderr, f.requests())
	}
	if !strings.Contains(out, "Storage pool default (dir) is there already") || !strings.Contains(out, "Network br0 is there already") {
		t.Errorf("it does not say what it found:\n%s", out)
	}
}

func TestEditTakesADocumentFromStdin(t *testing.T) {
	f := newFake(t)
	_, stderr, code := run(t, f, "description: new\nconfig:\n  user.b: \"2\"\n", "profile", "edit", "default")
	if want := `PUT /1.0/profiles/default {"config":{"user.b":"2"},"description":"new","devices":null}`; code != 0 || f.requests() != want {
		t.Errorf("got %d %s\n%s", code, stderr, f.requests())
	}
	_, stderr, code = run(t, f, "descriptionn: typo\n", "profile", "edit", "default")
	if code != 1 || !strings.Contains(stderr, "descriptionn") {
		t.Errorf("an unknown key: %d %q", code, stderr)
	}
	_, stderr, code = run(t, f, "", "profile", "edit", "default")
	if code != 1 || !strings.Contains(stderr, "no YAML document") {
		t.Errorf("an empty document: %d %q", code, stderr)
	}
}

func TestLaunchTakesADocumentFromStdin(t *testing.T) {
	f := newFake(t)
	out, stderr, code := run(t, f, "config:\n  user.a: \"1\"\nprofiles: []\n", "launch", "deb", "web", "-c", "user.b=2")
	if code != 0 || out != "Creating web\nStarting web\n" {
		t.Fatalf("got %d %q %q", code, out, stderr)
	}
	if got := normal(f.requests()); !strings.Contains(got, `"config":{"user.a":"1","user.b":"2"}`) || !strings.Contains(got, `"profiles":[]`) {
		t.Errorf("requests:\n%s", got)
	}
}

func TestPullStaysInItsDirectory(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	target := filepath.Join(dir, "in")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := run(t, f, "", "file", "pull", "-r", "c1/evil", target)
	if code != 1 || !strings.Contains(stderr, "impossible name") {
		t.Errorf("a name that leads out: %d %q", code, stderr)
	}
	// A link that stood there before is not followed out of the directory.
	if err := os.MkdirAll(filepath.Join(dir, "outside"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside", filepath.Join(target, "srv")); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code = run(t, f, "", "file", "pull", "-r", "c1/srv", target); code == 0 {
		t.Errorf("a link was followed out of the directory: %q", stderr)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "outside", "*")); len(names) > 0 {
		t.Errorf("written outside: %v", names)
	}
	if err := os.Remove(filepath.Join(target, "srv")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over what is there
		if _, stderr, code = run(t, f, "", "file", "pull", "-r", "c1/srv", target); code != 0 {
			t.Fatalf("got %d %q", code, stderr)
		}
	}
	st, err := os.Lstat(filepath.Join(target, "srv", "a"))
	if err != nil || st.Mode() != 0o640 {
		t.Errorf("srv/a: %v %v", st, err)
	}
	if link, err := os.Readlink(filepath.Join(target, "srv", "link")); link != "/etc/passwd" {
		t.Errorf("srv/link: %q %v", link, err)
	}
}

func TestPushToADirectoryThatExists(t *testing.T) {
	f := newFake(t)
	t.Chdir(dirWithFile(t))
	if _, stderr, code := run(t, f, "", "file", "push", "main_data", "c1/srv"); code != 0 {
		t.Fatal(stderr)
	}
	if _, stderr, code := run(t, f, "text", "file", "push", "-", "c1/srv/new"); code != 0 {
		t.Fatal(stderr)
	}
	want := "POST /srv/main_data type=file mode=0640 data\nPOST /srv/new type=file mode=0644 text"
	if f.requests() != want {
		t.Errorf("got\n%s\nwant\n%s", f.requests(), want)
	}
}

func TestStopAllIsParallelAndNamesWhatFailed(t *testing.T) {
	f := newFake(t)
	_, stderr, code := run(t, f, "", "stop", "c1", "broken", "c2")
	if code != 1 || stderr != "error: broken: it is broken\nError: Some instances failed to stop\n" {
		t.Errorf("got %d %q", code, stderr)
	}
	if got := strings.Count(f.requests(), "PUT"); got != 3 {
		t.Errorf("%d requests, want 3:\n%s", got, f.requests())
	}
}

func TestCompletionKnowsNames(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"exec", ""}, "c1 c2"}, {[]string{"stop", "c1", ""}, "c2"}, {[]string{"launch", ""}, "debian/12 deb"}, {[]string{"network", "show", ""}, "br0 enp1s0"},
		{[]string{"profile", "add", "c1", ""}, "default"}, {[]string{"list", "-f", ""}, "csv json table yaml compact"}, {[]string{"storage", "info", ""}, "default"},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			out, _, code := run(t, newFake(t), "", append([]string{"__complete"}, tc.args...)...)
			lines := slices.DeleteFunc(strings.Fields(out), func(s string) bool { return strings.HasPrefix(s, ":") })
			if got := strings.Join(lines, " "); got != tc.want || code != 0 {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestDebugShowsTraffic(t *testing.T) {
	_, stderr, code := run(t, newFake(t), "", "--debug", "profile", "set", "default", "user.x=1")
	if code != 0 || !strings.Contains(stderr, "GET /1.0/profiles/default") || !strings.Contains(stderr, `"user.x": "1"`) {
		t.Errorf("got %d %s", code, stderr)
	}
}

// Every command says what it does, and shows how.
func TestHelpHasExamples(t *testing.T) {
	f := newFake(t)
	var walk func(path []string)
	walk = func(path []string) {
		out, _, code := run(t, f, "", append(slices.Clone(path), "--help")...)
		_, list, hasSubs := strings.Cut(out, "Available Commands:\n")
		if !hasSubs && (!strings.Contains(out, "Examples:") || code != 0) {
			t.Errorf("%s --help has no example", strings.Join(path, " "))
		}
		list, _, _ = strings.Cut(list, "\n\n")
		for line := range strings.Lines(list) {
			name := strings.Fields(line)[0]
			if name != "help" && name != "completion" {
				walk(append(slices.Clone(path), name))
			}
		}
	}
	walk(nil)
}

func TestInfoSummary(t *testing.T) {
	out, stderr, code := run(t, newFake(t), "", "info", "--format", "summary")
	for _, want := range []string{"Server:      ", "Storage:     dir 1", "idmapped_mounts  true", "shoal info --format yaml"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code != 0 || strings.Contains(out, "api_extensions") {
		t.Errorf("%d %s\n%s", code, stderr, out)
	}
	if _, stderr, code := run(t, newFake(t), "", "info", "--format", "xml"); code != 2 || !strings.Contains(stderr, "summary or yaml") {
		t.Errorf("an unknown format: %d %s", code, stderr)
	}
}
