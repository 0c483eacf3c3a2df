package cli

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/mattn/go-runewidth"
)

func TestTableFitsTheTerminal(t *testing.T) {
	long := strings.Repeat("word ", 30)
	for _, width := range []int{40, 60, 80, 200} {
		out := newGrid([]string{"NAME", "TEXT", "日本"}, [][]string{{"a", long, "日本語日本語日本語"}, {"b\nc", strings.Repeat("x", 90), ""}}, width).boxed()
		for line := range strings.Lines(out) {
			if w := runewidth.StringWidth(strings.TrimRight(line, "\n")); w > width {
				t.Errorf("width %d: a line has %d cells:\n%s", width, w, out)
				break
			}
		}
		if got := strings.Count(out, "word"); got != 30 {
			t.Errorf("width %d: %d of 30 words are left:\n%s", width, got, out)
		}
		if got := strings.Count(out, "x"); got != 90 {
			t.Errorf("width %d: %d of 90 letters are left:\n%s", width, got, out)
		}
	}
}

func TestCellsCannotMoveTheCursor(t *testing.T) {
	out := newGrid([]string{"N"}, [][]string{{"a\x1b[2Jb\rc\x9b"}}, 0).boxed()
	if strings.ContainsAny(out, "\x1b\r\u009b") || !strings.Contains(out, "a[2Jbc") {
		t.Errorf("got %q", out)
	}
}

func TestEscapeDetaches(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"plain", "hello", "hello"}, {"detach", "ab\x01qcd", "ab"}, {"other key", "a\x01bc", "a\x01bc"}, {"twice", "\x01\x01q", "\x01\x01q"}, {"at the end", "ab\x01", "ab"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tc.in), iotest.OneByteReader(strings.NewReader(tc.in))} {
				got, err := io.ReadAll(&escapeReader{r: r})
				if string(got) != tc.want || err != nil {
					t.Errorf("got %q %v, want %q", got, err, tc.want)
				}
			}
		})
	}
}

func FuzzParseColumns(f *testing.F) {
	for _, s := range []string{"ns46tS", "n,user.comment:comment", "config:a.b::0", "devices:eth0.parent:X:5", ",", "n:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		cols, err := parseColumns(s)
		if err == nil && len(cols) == 0 {
			t.Errorf("%q gives neither columns nor an error", s)
		}
	})
}

func FuzzTable(f *testing.F) {
	f.Add("NAME", "a\nb", "日本 語", 30)
	f.Fuzz(func(t *testing.T, header, a, b string, width int) {
		g := newGrid([]string{header, "X"}, [][]string{{a, b}, {b}}, width%300)
		lines := strings.Split(strings.TrimSuffix(g.boxed(), "\n"), "\n")
		want := runewidth.StringWidth(lines[0])
		for _, l := range lines {
			if runewidth.StringWidth(l) != want {
				t.Fatalf("lines differ in width:\n%s", strings.Join(lines, "\n"))
			}
		}
	})
}
