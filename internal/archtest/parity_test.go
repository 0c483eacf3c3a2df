package archtest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestParityNamesRealTests keeps docs/parity.md true: whatever it calls done or partly done names tests, and they exist.
func TestParityNamesRealTests(t *testing.T) {
	root := filepath.Join("..", "..")
	have := testNames(t, root)
	b, err := os.ReadFile(filepath.Join(root, "docs", "parity.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for n, line := range strings.Split(string(b), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		if !strings.HasPrefix(line, "| `") || len(cells) < 3 {
			continue
		}
		rows++
		state := strings.TrimSpace(cells[2])
		word, _, _ := strings.Cut(state, ":")
		shown := ""
		if len(cells) > 3 {
			shown = strings.Trim(cells[3], " `")
		}
		switch word {
		case "done", "partly":
			if shown == "" {
				t.Errorf("line %d: %q names no test: %s", n+1, state, line)
			}
		case "planned", "dropped":
		default:
			t.Errorf("line %d: state %q: allowed are done, partly, planned and dropped", n+1, state)
		}
		for name := range strings.SplitSeq(shown, ",") {
			if name = strings.Trim(name, " `"); name != "" && !have[name] {
				t.Errorf("line %d: there is no test %q", n+1, name)
			}
		}
	}
	if rows < 200 {
		t.Errorf("only %d rows: the five seeds have more", rows)
	}
}

var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)

// testNames collects the names of all tests, and the scripts below test/ as their file name.
func testNames(t *testing.T, root string) map[string]bool {
	t.Helper()
	have := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch {
		case strings.HasSuffix(path, "_test.go"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
				have[m[1]] = true
			}
		case strings.HasSuffix(path, ".txtar"), strings.HasSuffix(path, ".txt"):
			have[filepath.Base(path)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return have
}
