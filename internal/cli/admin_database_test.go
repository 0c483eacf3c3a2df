package cli_test

import (
	"strings"
	"testing"
)

func TestEtcdDebug(t *testing.T) {
	for _, tc := range []struct {
		line, stdout, stderr string
		code                 int
	}{
		{"admin etcd-debug", "[ ok ] member: n1", "", 0},
		{"admin etcd-debug --format json", `"problems":0`, "", 0},
		{"admin etcd-debug --format yaml", "problems: 0", "", 0},
		{"admin etcd-debug --config e.yaml", "[FAIL] └─ connection: refused\n             hint: start it", "Error: 1 problem was found", 1},
		{"admin etcd-debug --config /e.yaml -f json", `"problems":1`, "Error: 1 problem was found", 1},
		{"admin etcd-debug --format table", "", "one of tree, json, yaml", 2},
		{"admin etcd-debug --config=", "", "--config needs the name of a file", 2},
		{"admin etcd-debug x", "", "Invalid number of arguments", 2},
	} {
		stdout, stderr, code := run(t, newFake(t), "", strings.Fields(tc.line)...)
		if code != tc.code || !strings.Contains(stdout, tc.stdout) || !strings.Contains(stderr, tc.stderr) || tc.stderr == "" && stderr != "" {
			t.Errorf("%s: %d\n%s\n%s", tc.line, code, stdout, stderr)
		}
	}
	t.Run("without a daemon", func(t *testing.T) {
		f := &fake{socket: t.TempDir() + "/none"}
		if _, stderr, code := run(t, f, "", "admin", "etcd-debug", "--config", "e.yaml"); code != 1 || !strings.Contains(stderr, "shoald etcd-debug e.yaml") {
			t.Errorf("%d %s", code, stderr)
		}
	})
}
