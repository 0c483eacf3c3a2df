package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// levels are the log levels in rising order.
var levels = []string{"trace", "debug", "info", "warn", "error"}

func (a *app) cmdMonitor() *cobra.Command {
	var types []string
	var format, level string
	var pretty, all bool
	cmd := &cobra.Command{
		Use: "monitor [remote:]", Short: "Monitor the server's events", Args: nargs(0, 1),
		Long:    "Monitor the server's events\n\nBy default all types of events are shown: operation, lifecycle and logging.",
		Example: "  shoal monitor --type=lifecycle\n  shoal monitor --pretty --type=logging --loglevel=info",
		RunE: func(cmd *cobra.Command, args []string) error {
			if pretty {
				format = "pretty"
			}
			if !slices.Contains([]string{"json", "pretty", "yaml"}, format) {
				return usagef("Invalid format %q: it has to be json, pretty or yaml", format)
			}
			if level != "" && (format != "pretty" || !slices.Contains(levels, level)) {
				return usagef("Log level filtering can only be used with pretty formatting and one of %s", strings.Join(levels, ", "))
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			c, err := a.connectTo(ctx, args)
			if err != nil {
				return err
			}
			s, err := c.Events(ctx, client.EventsOptions{Types: types, AllProjects: all})
			if err != nil {
				return err
			}
			defer s.Close()
			return a.monitor(ctx, s, format, level)
		},
	}
	cmd.Flags().StringArrayVar(&types, "type", nil, "Event type to listen for")
	cmd.Flags().StringVarP(&format, "format", "f", "yaml", "Format (json|pretty|yaml)")
	cmd.Flags().BoolVar(&pretty, "pretty", false, "Pretty rendering (short for --format=pretty)")
	cmd.Flags().StringVar(&level, "loglevel", "", "Minimum level for log messages (only available when using pretty format)")
	cmd.Flags().BoolVar(&all, "all-projects", false, "Show events from all projects")
	return cmd
}

func (a *app) monitor(ctx context.Context, s *client.EventStream, format, level string) error {
	for {
		e, err := s.Next(ctx)
		if ctx.Err() != nil {
			return &exitCodeError{exitInterrupted, nil}
		}
		if err != nil {
			return fmt.Errorf("the server ended the event stream: %w", err)
		}
		if err := a.printEvent(e, format, level); err != nil {
			return err
		}
	}
}

func (a *app) printEvent(e api.Event, format, level string) error {
	if format == "pretty" {
		if line := prettyEvent(e, level); line != "" {
			a.printf("%s\n", line)
		}
		return nil
	}
	// A map rather than the type, so that fields of the metadata stay as the server sent them.
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if format == "json" {
		a.printf("%s\n", data)
		return nil
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if err := a.yaml(v); err != nil {
		return err
	}
	a.printf("\n\n")
	return nil
}

// prettyEvent renders an event as one line, "" when its level is too low.
func prettyEvent(e api.Event, minimum string) string {
	line := func(lvl, msg string, kv map[string]string) string {
		if slices.Index(levels, lvl) < slices.Index(levels, minimum) {
			return ""
		}
		var b strings.Builder
		fmt.Fprintf(&b, "%-7s[%s] %-40s", strings.ToUpper(lvl), e.Timestamp.Format(time.RFC3339), printable(msg))
		for _, k := range sortedKeys(kv) {
			fmt.Fprintf(&b, " %s=%q", k, kv[k])
		}
		return strings.TrimRight(b.String(), " ")
	}
	switch e.Type {
	case api.EventTypeLogging:
		var l api.EventLogging
		_ = json.Unmarshal(e.Metadata, &l)
		if l.Level == "warning" {
			l.Level = "warn"
		}
		return line(l.Level, l.Message, l.Context)
	case api.EventTypeLifecycle:
		var l api.EventLifecycle
		_ = json.Unmarshal(e.Metadata, &l)
		kv := map[string]string{"source": l.Source}
		if l.Requestor != nil {
			kv["requestor"] = l.Requestor.Protocol + "/" + l.Requestor.Username
		}
		for k, v := range l.Context {
			kv[k] = fmt.Sprint(v)
		}
		return line("info", "Action: "+l.Action+", Source: "+l.Source, kv)
	case api.EventTypeOperation:
		var o api.Operation
		_ = json.Unmarshal(e.Metadata, &o)
		kv := map[string]string{"CreatedAt": o.CreatedAt.Format(time.RFC3339), "Err": o.Err, "Location": o.Location, "MayCancel": fmt.Sprint(o.MayCancel), "Status": o.Status}
		return line("info", fmt.Sprintf("ID: %s, Class: %s, Description: %s", o.ID, o.Class, o.Description), kv)
	}
	return ""
}

func (a *app) cmdQuery() *cobra.Command {
	var method, data string
	var wait, raw bool
	cmd := &cobra.Command{
		Use: "query <API path>", Short: "Send a raw query to the server", Args: nargs(1, 1),
		Example: "  shoal query /1.0/instances?recursion=1\n  shoal query -X DELETE --wait /1.0/instances/web",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := a.local(args[0])
			if err != nil {
				return err
			}
			if a.project != "" {
				return usagef("--project cannot be used with the query command; write it into the path: ?project=%s", a.project)
			}
			if !strings.HasPrefix(path, "/") {
				return usagef("Query path must start with /")
			}
			r := client.Request{Method: method, Path: path}
			if data == "-" {
				doc, err := a.stdinDocument()
				if err != nil {
					return err
				}
				data = string(doc)
			}
			if data != "" {
				if !json.Valid([]byte(data)) {
					return usagef("The data is not valid JSON")
				}
				r.Body = json.RawMessage(data)
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return a.query(cmd.Context(), c, r, wait, raw)
		},
	}
	cmd.Flags().StringVarP(&method, "request", "X", "GET", "Action")
	cmd.Flags().StringVarP(&data, "data", "d", "", "Input data")
	cmd.Flags().BoolVar(&wait, "wait", false, "Wait for the operation to complete")
	cmd.Flags().BoolVar(&raw, "raw", false, "Print the raw response")
	return cmd
}

func (a *app) query(ctx context.Context, c *client.Client, r client.Request, wait, raw bool) error {
	env, op, _, err := c.Raw(ctx, r)
	if err != nil {
		return err
	}
	if wait && op != nil {
		if err := a.wait(ctx, op); err != nil {
			return err
		}
		return a.indented(op.Last())
	}
	if raw {
		return a.indented(env)
	}
	var v any
	if err := json.Unmarshal(env.Metadata, &v); err != nil && len(env.Metadata) > 0 {
		return err
	}
	switch m := v.(type) {
	case nil:
		return nil
	case string:
		a.printf("%s\n", m)
		return nil
	case map[string]any:
		if len(m) == 0 {
			return nil
		}
	}
	return a.indented(v)
}

// indented prints JSON for people.
func (a *app) indented(v any) error {
	out, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	a.printf("%s\n\n", out)
	return nil
}
