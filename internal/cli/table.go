package cli

import (
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// A grid is a table whose cells have been split into lines.
type grid struct {
	header []string
	rows   [][][]string // row, column, line
	width  []int        // of each column, in terminal cells
}

// newGrid lays a table out. maxWidth bounds the width of a line, 0 means that there is no bound.
func newGrid(header []string, rows [][]string, maxWidth int) *grid {
	g := &grid{width: make([]int, len(header))}
	for i, h := range header {
		g.header = append(g.header, title(h))
		g.width[i] = runewidth.StringWidth(g.header[i])
	}
	for _, r := range rows {
		cells := make([][]string, len(header))
		for i := range header {
			text := ""
			if i < len(r) {
				text = printable(r[i])
			}
			cells[i] = strings.Split(text, "\n")
			for _, l := range cells[i] {
				g.width[i] = max(g.width[i], runewidth.StringWidth(l))
			}
		}
		g.rows = append(g.rows, cells)
	}
	g.fit(maxWidth)
	return g
}

// printable drops what could move the cursor: cells hold text that other people wrote.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, s)
}

// title is how headers look: upper case, with blanks for underscores, and for dots except in numbers.
func title(s string) string {
	rs := []rune(strings.ToUpper(s))
	digit := func(i int) bool {
		return i < 0 || i >= len(rs) || (rs[i] >= '0' && rs[i] <= '9') || rs[i] == ' '
	}
	for i, r := range rs {
		if r == '_' || (r == '.' && (!digit(i-1) || !digit(i+1))) {
			rs[i] = ' '
		}
	}
	return strings.TrimSpace(string(rs))
}

// minColumn is the width below which a column is not narrowed.
const minColumn = 10

// fit narrows the widest columns until a line has room in maxWidth cells, and breaks their contents over more
// lines. Nothing is cut off; when even that is too wide, the terminal wraps.
func (g *grid) fit(maxWidth int) {
	if maxWidth <= 0 {
		return
	}
	total := 1
	for _, w := range g.width {
		total += w + 3
	}
	narrowed := false
	for total > maxWidth {
		widest, at := 0, -1
		for i, w := range g.width {
			if w > widest && w > max(minColumn, runewidth.StringWidth(g.header[i])) {
				widest, at = w, i
			}
		}
		if at < 0 {
			break
		}
		g.width[at]--
		total--
		narrowed = true
	}
	if !narrowed {
		return
	}
	for _, row := range g.rows {
		for i, lines := range row {
			var out []string
			for _, l := range lines {
				out = append(out, breakLine(l, g.width[i])...)
			}
			row[i] = out
		}
	}
}

// breakLine breaks a line at blanks where it can.
func breakLine(s string, width int) []string {
	var out []string
	for runewidth.StringWidth(s) > width {
		head := runewidth.Truncate(s, width, "")
		if head == "" {
			break
		}
		if i := strings.LastIndexByte(head, ' '); i > 0 && len(head) < len(s) && s[len(head)] != ' ' {
			head = head[:i]
		}
		out = append(out, strings.TrimRight(head, " "))
		s = strings.TrimLeft(s[len(head):], " ")
	}
	return append(out, s)
}

func pad(n int) string { return strings.Repeat(" ", max(n, 0)) }

// boxed draws the table with lines around every row.
func (g *grid) boxed() string {
	var b strings.Builder
	rule := func() {
		for _, w := range g.width {
			b.WriteString("+" + strings.Repeat("-", w+2))
		}
		b.WriteString("+\n")
	}
	rule()
	g.lines(&b, "|", [][]string{g.header}, true)
	rule()
	for _, r := range g.rows {
		g.lines(&b, "|", r, false)
		rule()
	}
	return b.String()
}

// compact draws the table without any lines.
func (g *grid) compact() string {
	var b strings.Builder
	g.lines(&b, " ", [][]string{g.header}, true)
	for _, r := range g.rows {
		g.lines(&b, " ", r, false)
	}
	return b.String()
}

// lines draws one row. A header comes as a single row of cells, centred.
func (g *grid) lines(b *strings.Builder, sep string, cells [][]string, header bool) {
	height := 1
	if header {
		split := make([][]string, len(g.width))
		for i := range g.width {
			split[i] = []string{cells[0][i]}
		}
		cells = split
	}
	for _, c := range cells {
		height = max(height, len(c))
	}
	for l := range height {
		for i, w := range g.width {
			text := ""
			if l < len(cells[i]) {
				text = cells[i][l]
			}
			gap, left := w-runewidth.StringWidth(text), 0
			if header {
				left = gap / 2
			}
			between := sep
			if sep == " " && i > 0 {
				between = ""
			}
			b.WriteString(between + " " + pad(left) + text + pad(gap-left) + " ")
		}
		b.WriteString(sep + "\n")
	}
}
