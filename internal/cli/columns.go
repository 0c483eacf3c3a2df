package cli

import "strings"

// A column of a list that users select by a letter.
type column[T any] struct {
	letter rune
	header string
	text   func(T) string
}

// pickColumns returns the columns that letters ask for, in their order; commas between letters are optional.
func pickColumns[T any](letters string, all []column[T]) ([]column[T], error) {
	var out []column[T]
	for _, l := range strings.ReplaceAll(letters, ",", "") {
		found := false
		for _, c := range all {
			if c.letter == l {
				out, found = append(out, c), true
				break
			}
		}
		if !found {
			return nil, usagef("Unknown column shorthand char '%c' in '%s'; known are %s", l, letters, lettersOf(all))
		}
	}
	if len(out) == 0 {
		return nil, usagef("No column was asked for; known are %s", lettersOf(all))
	}
	return out, nil
}

func lettersOf[T any](all []column[T]) string {
	var b strings.Builder
	for _, c := range all {
		b.WriteRune(c.letter)
	}
	return b.String()
}

// tableOf prints items in columns.
func tableOf[T any](a *app, format string, cols []column[T], items []T) error {
	header := make([]string, len(cols))
	for i, c := range cols {
		header[i] = c.header
	}
	rows := [][]string{}
	for _, item := range items {
		row := make([]string, len(cols))
		for i, c := range cols {
			row[i] = c.text(item)
		}
		rows = append(rows, row)
	}
	sortRows(rows)
	return a.table(format, header, rows, items)
}
