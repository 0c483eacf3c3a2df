package cli

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"github.com/shoal-project/shoal/internal/units"
)

// formats are what -f accepts for lists.
var formats = []string{"csv", "json", "table", "yaml", "compact"}

func formatFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "format", "f", "table", "Format (csv|json|table|yaml|compact)")
	_ = cmd.RegisterFlagCompletionFunc("format", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return formats, cobra.ShellCompDirectiveNoFileComp
	})
}

func checkFormat(format string) error {
	if !slices.Contains(formats, format) {
		return usagef("Invalid format %q: it has to be one of %s", format, strings.Join(formats, ", "))
	}
	return nil
}

// table prints a list: rows for people, raw for programs.
func (a *app) table(format string, header []string, rows [][]string, raw any) error {
	if err := checkFormat(format); err != nil {
		return err
	}
	switch format {
	case "csv":
		w := csv.NewWriter(a.Out)
		return w.WriteAll(rows)
	case "json":
		return json.NewEncoder(a.Out).Encode(raw)
	case "yaml":
		return a.yaml(raw)
	case "compact":
		a.printf("%s", newGrid(header, rows, a.width()).compact())
	default:
		a.printf("%s", newGrid(header, rows, a.width()).boxed())
	}
	return nil
}

// width is the width of the terminal that standard output is, 0 when it is none.
func (a *app) width() int {
	fd, ok := terminal(a.Out)
	if !ok {
		return 0
	}
	w, _, err := term.GetSize(fd)
	if err != nil {
		return 0
	}
	return w
}

func (a *app) yaml(v any) error {
	data, err := marshalYAML(v)
	if err != nil {
		return err
	}
	a.printf("%s", data)
	return nil
}

// marshalYAML writes YAML the way lxc does: two blanks, lists not indented.
func marshalYAML(v any) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	e.CompactSeqIndent()
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// unmarshalYAML reads a user's document; keys that do not exist are refused by name.
func unmarshalYAML(data []byte, v any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil && len(bytes.TrimSpace(data)) > 0 {
		return fmt.Errorf("the YAML document is not valid: %w", err)
	}
	return nil
}

// sortRows orders rows by their first column, then the next.
func sortRows(rows [][]string) {
	slices.SortStableFunc(rows, func(x, y []string) int {
		for i := range x {
			if i >= len(y) {
				return 1
			}
			// Rows without a name come last.
			if (x[i] == "") != (y[i] == "") {
				if x[i] == "" {
					return 1
				}
				return -1
			}
			if c := cmp.Compare(x[i], y[i]); c != 0 {
				return c
			}
		}
		return 0
	})
}

// sizeIEC is a number of bytes for people, in powers of 1024: "1.50MiB".
func sizeIEC(n int64) string { return units.FormatBytesIEC(n, 2) }

// sizeSI is a number of bytes for people, in powers of 1000: "1.50MB".
func sizeSI(n int64) string { return units.FormatBytes(n, 2) }

const (
	minuteLayout = "2006/01/02 15:04 MST"
	longLayout   = "Jan 2, 2006 at 3:04pm (MST)"
)

// timeIsSet reports whether a time on the wire means a moment: neither zero nor the epoch.
func timeIsSet(t time.Time) bool { return t.Unix() > 0 }

func minute(t time.Time) string {
	if !timeIsSet(t) {
		return ""
	}
	return t.UTC().Format(minuteLayout)
}

// yesNo and YesNo are how tables show truth.
func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func upperYesNo(b bool) string { return strings.ToUpper(yesNo(b)) }
