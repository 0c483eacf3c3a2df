package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

var reportFormats = []string{"tree", "json", "yaml"}

func (a *app) adminEtcdDebug() *cobra.Command {
	var config, format string
	cmd := &cobra.Command{
		Use: "etcd-debug", Short: "Check the cluster database step by step", Args: nargs(0, 0),
		Long: `Check the cluster database step by step

The daemon goes from the configuration over names, connections, TLS, certificates and login to the members, the revision and the
heartbeats, and says for each problem what to do about it. It writes nothing, and works while the daemon waits for its database.

With --config a cluster is checked that the daemon does not use, or not yet. Without any daemon, "shoald etcd-debug FILE" does the same.

Ends with 1 when there is a problem.`,
		Example: "  shoal admin etcd-debug\n  shoal admin etcd-debug --config /etc/shoal/etcd.yaml\n  shoal admin etcd-debug --format json | jq .problems",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(reportFormats, format) {
				return usagef("Invalid format %q: it has to be one of %s", format, strings.Join(reportFormats, ", "))
			}
			if cmd.Flags().Changed("config") && config == "" {
				return usagef("--config needs the name of a file")
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return withoutDaemon(err, config)
			}
			defer c.Close()
			var r *api.DatabaseReport
			if config == "" {
				r, err = c.DebugDatabase(cmd.Context())
			} else {
				var path string
				if path, err = filepath.Abs(config); err == nil {
					r, err = c.DebugDatabaseConfig(cmd.Context(), path)
				}
			}
			if err != nil {
				return err
			}
			return a.databaseReport(*r, format)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "Configuration `file` of an etcd cluster to check instead")
	cmd.Flags().StringVarP(&format, "format", "f", "tree", "Format (tree|json|yaml)")
	_ = cmd.RegisterFlagCompletionFunc("format", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return reportFormats, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// withoutDaemon names the way that needs no daemon.
func withoutDaemon(err error, config string) error {
	var gone *client.ConnectError
	if config != "" && errors.As(err, &gone) {
		return fmt.Errorf("%w\nWithout a daemon: shoald etcd-debug %s", err, config)
	}
	return err
}

func (a *app) databaseReport(r api.DatabaseReport, format string) error {
	switch format {
	case "json":
		if err := json.NewEncoder(a.Out).Encode(r); err != nil {
			return err
		}
	case "yaml":
		if err := a.yaml(r); err != nil {
			return err
		}
	default:
		a.printf("%s", r)
	}
	switch r.Problems {
	case 0:
		return nil
	case 1:
		return errors.New("1 problem was found")
	}
	return fmt.Errorf("%d problems were found", r.Problems)
}
