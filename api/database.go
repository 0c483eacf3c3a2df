package api

import (
	"strings"
	"unicode/utf8"
)

// DatabaseDebugPost asks for a check of the cluster database that a configuration file names.
type DatabaseDebugPost struct {
	Config string `json:"config" yaml:"config"` // absolute path on the server
}

// DatabaseReport is what a check of the cluster database found.
type DatabaseReport struct {
	Database string          `json:"database" yaml:"database"` // embedded or etcd
	Problems int             `json:"problems" yaml:"problems"` // how many checks, at any depth, have status error
	Checks   []DatabaseCheck `json:"checks" yaml:"checks"`
}

// The statuses of a check. Only an error is a problem.
const (
	CheckOK      = "ok"
	CheckInfo    = "info"
	CheckWarning = "warning"
	CheckError   = "error"
)

// DatabaseCheck is one thing that was looked at, and what it consists of.
type DatabaseCheck struct {
	Name   string          `json:"name" yaml:"name"`
	Status string          `json:"status" yaml:"status"`                 // ok, info, warning or error
	Text   string          `json:"text,omitempty" yaml:"text,omitempty"` // what was found
	Hint   string          `json:"hint,omitempty" yaml:"hint,omitempty"` // what to do about an error or a warning
	Checks []DatabaseCheck `json:"checks,omitempty" yaml:"checks,omitempty"`
}

// String draws the report as a tree, for people; both programs print it like this.
func (r DatabaseReport) String() string {
	var b strings.Builder
	for i, c := range r.Checks {
		if i > 0 {
			b.WriteString("\n")
		}
		c.draw(&b, "", "")
	}
	return b.String()
}

var checkMarks = map[string]string{CheckOK: "[ ok ]", CheckInfo: "      ", CheckWarning: "[warn]", CheckError: "[FAIL]"}

// draw writes the check: first stands before its first line, rest before all others.
func (c DatabaseCheck) draw(b *strings.Builder, first, rest string) {
	line := first + c.Name
	if c.Text != "" {
		line += ": " + c.Text
	}
	b.WriteString(checkMarks[c.Status] + " " + printable(line) + "\n")
	below := rest
	if len(c.Checks) > 0 {
		below += "│  "
	} else {
		below += "   "
	}
	if c.Hint != "" {
		b.WriteString(checkMarks[CheckInfo] + " " + printable(below+"hint: "+c.Hint) + "\n")
	}
	for i, sub := range c.Checks {
		if i < len(c.Checks)-1 {
			sub.draw(b, rest+"├─ ", rest+"│  ")
		} else {
			sub.draw(b, rest+"└─ ", rest+"   ")
		}
	}
}

// printable keeps what a server or a certificate says from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}
