package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Package is what the rules need to know of a package; the names are those of go list.
type Package struct {
	ImportPath string
	Doc        string
	Imports    []string
}

// Check returns every breach of the rules on imports, one sentence each, with the rule's reason.
func Check(packages []Package) []string {
	var out []string
	for _, p := range packages {
		from := relative(p.ImportPath)
		room, ok := roomOf(from)
		if !ok {
			out = append(out, fmt.Sprintf("%s has no place in archtest.Rooms: which line does it stand on?", from))
			continue
		}
		if p.Doc == "" {
			out = append(out, fmt.Sprintf("%s has no package comment: say what the room is for", from))
		}
		for _, imp := range p.Imports {
			to := relative(imp)
			out = append(out, checkLine(from, room, to, to != imp)...)
			out = append(out, checkGuard(from, to)...)
		}
		out = append(out, checkDiet(from, p.Imports)...)
	}
	return out
}

func relative(path string) string {
	if rest, ok := strings.CutPrefix(path, Module+"/"); ok {
		return rest
	}
	return path
}

// within reports whether path is dir or below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func roomOf(path string) (Room, bool) {
	var best Room
	for _, r := range Rooms() {
		if within(path, r.Path) && len(r.Path) > len(best.Path) {
			best = r
		}
	}
	return best, best.Path != ""
}

func checkLine(from string, room Room, to string, ours bool) []string {
	if !ours {
		return nil
	}
	other, ok := roomOf(to)
	switch {
	case !ok: // said at the package itself
		return nil
	case other.Path == room.Path, other.Line < room.Line:
		return nil
	case room.Line == Tools: // tools of tests may use each other
		return nil
	case other.Line == Tools:
		return []string{fmt.Sprintf("%s imports %s, which is for tests only", from, to)}
	// The words between a room and a program of its own stand in the room.
	case room.Line == Programs && other.Line < Programs:
		return nil
	}
	return []string{fmt.Sprintf("%s (line %d) imports %s (line %d): a room imports only rooms on lower lines; declare an interface where it is used",
		from, room.Line, to, other.Line)}
}

func checkGuard(from, to string) []string {
	var best *Guard
	for _, g := range OnlyFrom() {
		if within(to, g.Package) && (best == nil || len(g.Package) > len(best.Package)) {
			best = &g
		}
	}
	if best == nil || within(from, best.Package) || slices.ContainsFunc(best.From, func(d string) bool { return within(from, d) }) {
		return nil
	}
	return []string{fmt.Sprintf("%s imports %s, which only %s may: %s", from, to, strings.Join(best.From, ", "), best.Reason)}
}

func checkDiet(from string, imports []string) []string {
	var out []string
	for _, d := range OnlyThese() {
		if !within(from, d.Package) {
			continue
		}
		for _, imp := range imports {
			to := relative(imp)
			first, _, _ := strings.Cut(imp, "/")
			if !strings.Contains(first, ".") || within(to, d.Package) || slices.ContainsFunc(d.May, func(m string) bool { return within(to, m) }) {
				continue
			}
			out = append(out, fmt.Sprintf("%s imports %s; it may import the standard library and %v only: %s", from, to, d.May, d.Reason))
		}
	}
	return out
}
