package cli

import (
	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (a *app) cmdSnapshot() *cobra.Command {
	var stateful, noExpiry, reuse bool
	cmd := &cobra.Command{
		Use: "snapshot <instance> [<snapshot>]", Short: "Create instance snapshots", Args: nargs(1, 2),
		Long: `Create instance snapshots

Without a name one is made from snapshots.pattern (default snap%d). A running instance goes on; the snapshot holds what a
power cut at that moment would leave on its disk.`,
		Example:           "  shoal snapshot web\n  shoal snapshot web before-upgrade\n  shoal snapshot web nightly --reuse --no-expiry",
		ValidArgsFunction: completer(a.completeInstances).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.local(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			req := api.InstanceSnapshotsPost{Stateful: stateful}
			if len(args) > 1 {
				req.Name = args[1]
			}
			if noExpiry {
				req.ExpiresAt = &api.Time{}
			}
			if reuse && req.Name != "" {
				if _, _, err := c.InstanceSnapshot(cmd.Context(), name, req.Name); err == nil {
					op, err := c.DeleteInstanceSnapshot(cmd.Context(), name, req.Name)
					if err == nil {
						err = a.wait(cmd.Context(), op)
					}
					if err != nil {
						return err
					}
				} else if !client.IsNotFound(err) {
					return err
				}
			}
			op, err := c.CreateInstanceSnapshot(cmd.Context(), name, req)
			if err != nil {
				return err
			}
			return a.wait(cmd.Context(), op)
		},
	}
	cmd.Flags().BoolVar(&stateful, "stateful", false, "Whether or not to snapshot the instance's running state")
	cmd.Flags().BoolVar(&noExpiry, "no-expiry", false, "Ignore any configured auto-expiry for the instance")
	cmd.Flags().BoolVar(&reuse, "reuse", false, "If the snapshot name already exists, delete and create a new one")
	return cmd
}

func (a *app) cmdRestore() *cobra.Command {
	return &cobra.Command{
		Use: "restore <instance> <snapshot>", Short: "Restore instances from snapshots", Args: nargs(2, 2),
		Long: `Restore instances from snapshots

Disk, configuration, devices and profiles become those of the snapshot. A running instance is stopped at once and started again.`,
		Example:           "  shoal snapshot web before\n  shoal restore web before",
		ValidArgsFunction: completer(a.completeInstances).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.local(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			op, err := c.RestoreInstance(cmd.Context(), name, args[1])
			if err != nil {
				return err
			}
			return a.wait(cmd.Context(), op)
		},
	}
}
