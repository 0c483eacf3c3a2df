package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/client"
)

// A document is an object with a configuration, read from the server and ready to be written back.
type document struct {
	show   any                // what "show" prints
	edit   any                // pointer to the writable part, in which "edit" decodes YAML
	config *map[string]string // the configuration inside edit
	// save writes edit back, if the object has not changed since it was read.
	save func(ctx context.Context) error
}

// A noun is a kind of object that has a configuration.
type noun struct {
	name     string // for messages: "network"
	arg      string // for usage: "<network>"
	optional bool   // without a name the server's own configuration is meant
	header   string // comment above the YAML in an editor
	load     func(ctx context.Context, c *client.Client, name string) (*document, error)
	complete completer
}

func (n noun) use(verb, rest string) string {
	arg := n.arg
	if n.optional {
		arg = "[" + arg + "]"
	}
	return strings.TrimSpace(verb + " " + arg + " " + rest)
}

// open splits the object's name from the other arguments and loads it. want is the least number of
// other arguments; where the name may be left out, exactly that many mean that it was.
func (n noun) open(ctx context.Context, a *app, args []string, want int) (*document, []string, error) {
	name := ""
	if !n.optional || len(args) > want {
		var err error
		if name, err = a.local(args[0]); err != nil {
			return nil, nil, err
		}
		if name == "" && !n.optional {
			return nil, nil, usagef("Missing %s name", n.name)
		}
		args = args[1:]
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	d, err := n.load(ctx, c, name)
	if err != nil {
		return nil, nil, err
	}
	if *d.config == nil {
		*d.config = map[string]string{}
	}
	return d, args, nil
}

func (n noun) minimum(extra int) int {
	if n.optional {
		return extra
	}
	return extra + 1
}

func (a *app) nounGet(n noun) *cobra.Command {
	return &cobra.Command{
		Use: n.use("get", "<key>"), Short: fmt.Sprintf("Get values for %s configuration keys", n.name), Args: nargs(n.minimum(1), 2),
		ValidArgsFunction: n.complete.first(), Example: "  " + n.example("get", "user.note"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, rest, err := n.open(cmd.Context(), a, args, 1)
			if err != nil {
				return err
			}
			a.printf("%s\n", (*d.config)[rest[0]])
			return nil
		},
	}
}

func (n noun) example(verb, rest string) string {
	return strings.TrimSpace(fmt.Sprintf("shoal %s %s %s %s", n.command(), verb, "x1", rest))
}

func (n noun) command() string {
	if n.optional {
		return "config"
	}
	return n.name
}

func (a *app) nounSet(n noun) *cobra.Command {
	return &cobra.Command{
		Use: n.use("set", "<key>=<value>..."), Short: fmt.Sprintf("Set %s configuration keys", n.name),
		Long: fmt.Sprintf("Set %s configuration keys\n\nA single key may also be given as <key> <value>. The value \"-\" is read from standard input.", n.name),
		Args: nargs(n.minimum(1), -1), ValidArgsFunction: n.complete.first(), Example: "  " + n.example("set", "user.note=hello"),
		RunE: func(cmd *cobra.Command, args []string) error {
			want := len(args) - 1
			if n.optional && strings.Contains(args[0], "=") || n.optional && len(args) == 2 && !strings.Contains(args[1], "=") {
				want = len(args)
			}
			d, rest, err := n.open(cmd.Context(), a, args, want)
			if err != nil {
				return err
			}
			kv, err := a.assignments(rest)
			if err != nil {
				return err
			}
			maps.Copy(*d.config, kv)
			return d.save(cmd.Context())
		},
	}
}

// assignments parses "key=value..." or the older "key value".
func (a *app) assignments(args []string) (map[string]string, error) {
	if len(args) == 2 && !strings.Contains(args[0], "=") {
		args = []string{args[0] + "=" + args[1]}
	}
	if len(args) == 0 {
		return nil, usagef("Missing key=value")
	}
	kv, err := keyValues(args)
	if err != nil {
		return nil, err
	}
	for k, v := range kv {
		if v != "-" {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(a.In, maxDocument))
		if err != nil {
			return nil, fmt.Errorf("read the value of %s: %w", k, err)
		}
		kv[k] = string(data)
	}
	return kv, nil
}

func (a *app) nounUnset(n noun) *cobra.Command {
	return &cobra.Command{
		Use: n.use("unset", "<key>"), Short: fmt.Sprintf("Unset %s configuration keys", n.name), Args: nargs(n.minimum(1), 2),
		ValidArgsFunction: n.complete.first(), Example: "  " + n.example("unset", "user.note"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, rest, err := n.open(cmd.Context(), a, args, 1)
			if err != nil {
				return err
			}
			if _, ok := (*d.config)[rest[0]]; !ok {
				return fmt.Errorf("Can't unset key '%s', it's not currently set", rest[0]) //nolint:staticcheck // lxc's text
			}
			delete(*d.config, rest[0])
			return d.save(cmd.Context())
		},
	}
}

func (a *app) nounShow(n noun) *cobra.Command {
	return &cobra.Command{
		Use: n.use("show", ""), Short: fmt.Sprintf("Show %s configurations", n.name), Args: nargs(n.minimum(0), 1),
		ValidArgsFunction: n.complete.first(), Example: "  " + n.example("show", ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, _, err := n.open(cmd.Context(), a, args, 0)
			if err != nil {
				return err
			}
			return a.yaml(d.show)
		},
	}
}

func (a *app) nounEdit(n noun) *cobra.Command {
	return &cobra.Command{
		Use: n.use("edit", ""), Short: fmt.Sprintf("Edit %s configurations as YAML", n.name), Args: nargs(n.minimum(0), 1),
		Long:              fmt.Sprintf("Edit %s configurations as YAML\n\nWith a document on standard input no editor is started.", n.name),
		ValidArgsFunction: n.complete.first(), Example: "  " + n.example("edit", "< config.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, _, err := n.open(cmd.Context(), a, args, 0)
			if err != nil {
				return err
			}
			return a.editDocument(cmd.Context(), n.header, d)
		},
	}
}

func (a *app) nounCommands(n noun) []*cobra.Command {
	return []*cobra.Command{a.nounEdit(n), a.nounGet(n), a.nounSet(n), a.nounShow(n), a.nounUnset(n)}
}

// sorted returns a sorted copy, for lists whose order on the wire means nothing.
func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// sortedKeys returns a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
