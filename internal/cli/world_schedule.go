package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (a *app) worldSchedule() *cobra.Command {
	list := newView(a, view[[]api.WorldSchedule]{
		use: "list", short: "List schedules and who is chosen", aliases: []string{"ls"}, args: nargs(0, 0),
		example: "  shoal world schedule list\n  shoal world schedule list --watch",
		live: func(c *client.Client, _ []string) (client.Live[[]api.WorldSchedule], error) {
			return c.WorldSchedules(), nil
		},
		header: []string{"NAME", "STRATEGY", "MAX", "CHOSEN", "WAITING"}, rows: scheduleRows,
	})
	show := newView(a, view[*api.WorldSchedule]{
		use: "show <schedule>", short: "Show who takes part in a schedule, who is chosen, and why the others are not", args: nargs(1, 1),
		example: "  shoal world schedule show web\n  shoal world schedule show web --watch -f json",
		live: func(c *client.Client, args []string) (client.Live[*api.WorldSchedule], error) {
			return c.WorldSchedule(args[0]), nil
		},
		header: []string{"HOST", "CHOSEN", "WEIGHT", "LOAD", "LABELS", "REASON"}, rows: candidateRows,
	})
	cmd := group("schedule", "Choose hosts, at most so many, by a strategy", list, show,
		a.scheduleWrite(true), a.scheduleWrite(false), a.scheduleDelete(), a.scheduleJoin(), a.scheduleLeave())
	cmd.Long = `Choose hosts, at most so many, by a strategy

Hosts take part in a schedule; all machines see the same choice among those that do. When a chosen host is lost or leaves,
another takes its place and the others stay. Strategies:

  round-robin    who has waited longest
  alphabetical   the first names
  least-loaded   the lowest load; with --margin a chosen host gives way to one that has so much less
  spread         as equal a number as possible of each failure domain, which the label zone or --domain names
  weighted       in proportion to weights, by hashing the names`
	cmd.Example = `  shoal world schedule create web --strategy spread --max 3
  shoal world schedule join web --label zone=east
  shoal world schedule show web --watch`
	return cmd
}

func scheduleRows(all []api.WorldSchedule) [][]string {
	var rows [][]string
	for _, s := range all {
		strategy, limit := "(unknown)", ""
		if s.Spec != nil {
			strategy, limit = s.Spec.Strategy, "all"
			if s.Spec.Max > 0 {
				limit = strconv.Itoa(s.Spec.Max)
			}
		}
		rows = append(rows, []string{s.Name, strategy, limit, strings.Join(s.Hosts, "\n"), strconv.Itoa(len(s.Candidates) - len(s.Hosts))})
	}
	return rows
}

// candidateRows has the chosen ones first, in their order.
func candidateRows(s *api.WorldSchedule) [][]string {
	if s == nil {
		return nil
	}
	place := func(c api.WorldScheduleCandidate) int {
		if i := slices.Index(s.Hosts, c.Host); i >= 0 {
			return i
		}
		return len(s.Hosts)
	}
	all := slices.Clone(s.Candidates)
	slices.SortStableFunc(all, func(x, y api.WorldScheduleCandidate) int { return place(x) - place(y) })
	var rows [][]string
	for _, c := range all {
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
			labels = append(labels, k+"="+c.Labels[k])
		}
		rows = append(rows, []string{c.Host, upperYesNo(c.Chosen), strconv.Itoa(max(1, c.Weight)), strconv.FormatFloat(c.Load, 'g', -1, 64), strings.Join(labels, "\n"), c.Reason})
	}
	return rows
}

// specFlags are the flags that say what a schedule asks for.
type specFlags struct {
	spec   api.WorldScheduleSpec
	limit  string
	labels []string
}

func (f *specFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.spec.Strategy, "strategy", "round-robin", "round-robin, alphabetical, least-loaded, spread or weighted")
	fl.StringVar(&f.limit, "max", "1", "Choose at most so many hosts, or all")
	fl.StringArrayVar(&f.spec.Hosts, "host", nil, "Choose only hosts with this name or pattern (may be repeated)")
	fl.StringArrayVar(&f.spec.Exclude, "exclude", nil, "Choose no host with this name or pattern (may be repeated)")
	fl.StringArrayVar(&f.labels, "label", nil, "Choose only hosts with this label, KEY=VALUE (may be repeated)")
	fl.StringVar(&f.spec.Domain, "domain", "", "Label that names a host's failure domain, for spread (default zone)")
	fl.Float64Var(&f.spec.Margin, "margin", 0, "Difference of load from which on a chosen host gives way, for least-loaded (default never)")
}

// apply writes the flags that were given over a spec.
func (f *specFlags) apply(cmd *cobra.Command, to *api.WorldScheduleSpec) error {
	given := cmd.Flags().Changed
	if f.limit == "all" {
		f.spec.Max = 0
	} else if n, err := strconv.Atoi(f.limit); err != nil || n < 1 {
		return usagef("Invalid maximum %q: it has to be a number from 1 on, or all", f.limit)
	} else {
		f.spec.Max = n
	}
	labels, err := parseLabels(f.labels)
	if err != nil {
		return err
	}
	for name, set := range map[string]func(){
		"strategy": func() { to.Strategy = f.spec.Strategy }, "max": func() { to.Max = f.spec.Max }, "host": func() { to.Hosts = f.spec.Hosts },
		"exclude": func() { to.Exclude = f.spec.Exclude }, "label": func() { to.Labels = labels }, "domain": func() { to.Domain = f.spec.Domain },
		"margin": func() { to.Margin = f.spec.Margin },
	} {
		if given(name) {
			set()
		}
	}
	return nil
}

func parseLabels(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, l := range list {
		if l == "" {
			continue // an empty one takes all back
		}
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, usagef("Invalid label %q: it has to be KEY=VALUE", l)
		}
		out[k] = v
	}
	return out, nil
}

// scheduleWrite is create, or configure, which changes what its flags name.
func (a *app) scheduleWrite(create bool) *cobra.Command {
	var f specFlags
	cmd := &cobra.Command{Use: "configure <schedule>", Short: "Change what a schedule asks for", Args: nargs(1, 1),
		Long:    "Change what a schedule asks for\n\nWhat no flag names stays as it is. A repeated flag replaces the whole list; given once and empty it takes it back.",
		Example: "  shoal world schedule configure web --max all\n  shoal world schedule configure web --exclude h3   # empty host h3"}
	if create {
		cmd.Use, cmd.Short, cmd.Long = "create <schedule>", "Create a schedule", ""
		cmd.Example = "  shoal world schedule create web --strategy spread --max 3\n  shoal world schedule create db --host 'db*' --label disk=ssd"
	}
	f.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		put := api.WorldSchedulePut{WorldScheduleSpec: api.WorldScheduleSpec{Strategy: "round-robin", Max: 1}, Revision: new(int64)}
		if err := f.apply(cmd, &put.WorldScheduleSpec); err != nil {
			return err
		}
		c, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		if !create {
			s, err := c.WorldSchedule(args[0]).Get(cmd.Context())
			if err != nil {
				return err
			}
			if s.Spec == nil {
				return fmt.Errorf("schedule %q has no specification that can be changed: %s", args[0], strings.Join(s.Errors, "; "))
			}
			put.WorldScheduleSpec, put.Revision = *s.Spec, &s.SpecRevision
			if err := f.apply(cmd, &put.WorldScheduleSpec); err != nil {
				return err
			}
		}
		put.Hosts, put.Exclude = nonEmpty(put.Hosts), nonEmpty(put.Exclude)
		return c.PutWorldSchedule(cmd.Context(), args[0], put)
	}
	return cmd
}

func nonEmpty(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "" })
}

func (a *app) scheduleDelete() *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "delete <schedule>", Aliases: []string{"rm"}, Short: "Delete a schedule", Args: nargs(1, 1), Example: "  shoal world schedule delete web",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return c.DeleteWorldSchedule(cmd.Context(), args[0], force)
		}}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Delete it although hosts take part")
	return cmd
}

func (a *app) scheduleJoin() *cobra.Command {
	var host api.WorldScheduleHost
	var labels []string
	cmd := &cobra.Command{Use: "join <schedule>", Short: "Have the server's machine take part in a schedule", Args: nargs(1, 1),
		Long:    "Have the server's machine take part in a schedule\n\nIt does until it leaves, whether it is up or not. Joining again changes what it says about itself.",
		Example: "  shoal world schedule join web\n  shoal world schedule join web --label zone=east --weight 5",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if host.Labels, err = parseLabels(labels); err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return c.JoinWorldSchedule(cmd.Context(), args[0], host)
		}}
	cmd.Flags().StringArrayVar(&labels, "label", nil, "Say this about the machine, KEY=VALUE (may be repeated)")
	cmd.Flags().IntVar(&host.Weight, "weight", 1, "Weight of the machine, 1 to 1000")
	cmd.Flags().Float64Var(&host.Load, "load", 0, "Load of the machine, in any measure that all hosts of the schedule share")
	return cmd
}

func (a *app) scheduleLeave() *cobra.Command {
	return &cobra.Command{Use: "leave <schedule> [<host>]", Short: "Take a host out of a schedule", Args: nargs(1, 2),
		Long:    "Take a host out of a schedule\n\nWithout a host it is the server's machine, which is replaced before it goes. Another host goes at once, and joins again by itself if it is up\nand holds its place: exclude it with configure instead.",
		Example: "  shoal world schedule leave web\n  shoal world schedule leave web h3   # which will not come back",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 1 {
				w, err := c.World(cmd.Context())
				if err != nil {
					return err
				}
				args = append(args, w.Machine)
			}
			return c.LeaveWorldSchedule(cmd.Context(), args[0], args[1])
		}}
}
