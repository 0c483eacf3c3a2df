package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "shoal",
		Short: "Command line client for Shoal",
		Long: `Command line client for Shoal

The daemon is found through $SHOAL_SOCKET, else unix.socket in $SHOAL_DIR (default /var/lib/shoal).
$SHOAL_PROJECT or --project selects a project. Names of other servers are written server:name; "shoal remote" keeps the list of servers.

Exit codes: 0 success, 1 error, 2 wrong usage, 130 ended by Ctrl-C; exec passes on the code of its command.`,
		Example: `  shoal admin init --auto
  shoal image import meta.tar.xz rootfs.squashfs --alias debian
  shoal launch debian web
  shoal exec web -- systemctl is-system-running
  shoal list`,
		SilenceErrors: true, SilenceUsage: true, Version: a.version, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("{{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVar(&a.project, "project", "", "Override the project")
	f.BoolVar(&a.debug, "debug", false, "Show all requests and replies")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "Don't show progress information")
	f.BoolP("verbose", "v", false, "Show all information messages")
	f.BoolVar(&a.forceLocal, "force-local", false, "Force using the local unix socket")
	f.BoolP("help", "h", false, "Print help")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%s", err) })
	_ = root.RegisterFlagCompletionFunc("project", a.completeProjects)
	root.AddCommand(
		a.cmdAdmin(), a.cmdConfig(), a.cmdConsole(), a.cmdCopy(), a.cmdDelete(), a.cmdExec(), a.cmdFile(), a.cmdImage(), a.cmdInfo(),
		a.cmdInit(), a.cmdLaunch(), a.cmdList(), a.cmdMonitor(), a.cmdNetwork(), a.cmdOperation(), a.cmdPause(),
		a.cmdProfile(), a.cmdProject(), a.cmdQuery(), a.cmdRemote(), a.cmdRename(), a.cmdRestart(), a.cmdRestore(), a.cmdSnapshot(), a.cmdStart(), a.cmdStop(),
		a.cmdStorage(), a.cmdVersion(), a.cmdWarning(), a.cmdWorld(),
	)
	return root
}

func (a *app) cmdVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version [remote:]", Short: "Show local and remote versions", Args: nargs(0, 1), Example: "  shoal version",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if _, err := a.local(args[0]); err != nil {
					return err
				}
			}
			a.printf("Client version: %s\n", a.version)
			server := "unreachable"
			if c, err := a.connect(cmd.Context()); err == nil {
				if s, _, err := c.Server(cmd.Context()); err == nil {
					server = s.Environment.ServerVersion
				}
			}
			a.printf("Server version: %s\n", server)
			return nil
		},
	}
}

// keyValues parses key=value arguments.
func keyValues(args []string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range args {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, usagef("Invalid argument %q: it has to be key=value", s)
		}
		m[k] = v
	}
	return m, nil
}
