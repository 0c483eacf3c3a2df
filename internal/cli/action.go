package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// actionFlags are the flags of start, stop, restart and pause.
type actionFlags struct {
	all, force, stateful, stateless bool
	timeout                         int
	console                         string
}

func (a *app) cmdStart() *cobra.Command {
	var f actionFlags
	cmd := a.action("start", "Start instances", "  shoal start web db\n  shoal start web --console", &f)
	cmd.Flags().BoolVar(&f.stateless, "stateless", false, "Ignore the instance state")
	consoleFlag(cmd, &f.console)
	return cmd
}

func (a *app) cmdStop() *cobra.Command {
	var f actionFlags
	cmd := a.action("stop", "Stop instances", "  shoal stop web\n  shoal stop web --force\n  shoal stop --all --timeout 30", &f)
	cmd.Flags().BoolVar(&f.stateful, "stateful", false, "Store the instance state")
	stopFlags(cmd, &f)
	return cmd
}

func (a *app) cmdRestart() *cobra.Command {
	var f actionFlags
	cmd := a.action("restart", "Restart instances", "  shoal restart web", &f)
	stopFlags(cmd, &f)
	return cmd
}

func (a *app) cmdPause() *cobra.Command {
	var f actionFlags
	cmd := a.action("pause", "Pause instances", "  shoal pause web\n  shoal start web", &f)
	cmd.Long = "Pause instances\n\nThe processes stop where they are. The opposite of \"shoal pause\" is \"shoal start\"."
	return cmd
}

func stopFlags(cmd *cobra.Command, f *actionFlags) {
	cmd.Flags().BoolVarP(&f.force, "force", "f", false, "Force the instance to shutdown")
	cmd.Flags().IntVar(&f.timeout, "timeout", -1, "Time to wait for the instance before killing it, in seconds; -1 waits for ever")
	consoleFlag(cmd, &f.console)
}

func (a *app) action(verb, short, example string, f *actionFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " <instance> [<instance>...]", Short: short, Example: example, ValidArgsFunction: completer(a.completeInstances),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.locals(args)
			if err != nil {
				return err
			}
			switch {
			case f.all && len(names) > 0 && strings.Join(names, "") != "":
				return usagef("Both --all and instance name given")
			case !f.all && len(names) == 0:
				return usagef("Invalid number of arguments\nUsage: %s", cmd.UseLine())
			case f.console != "" && (f.all || len(names) != 1):
				return usagef("--console only works with a single instance")
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			if f.all {
				if names, err = affected(cmd.Context(), c, verb); err != nil {
					return err
				}
			}
			return a.act(cmd.Context(), c, verb, f, names)
		},
	}
	cmd.Flags().BoolVar(&f.all, "all", false, "Run against all instances")
	return cmd
}

// affected are the instances that --all means: those whose state the verb changes.
func affected(ctx context.Context, c *client.Client, verb string) ([]string, error) {
	all, err := c.Instances(ctx, client.InstancesOptions{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range all {
		running := i.StatusCode == api.Running
		frozen := i.StatusCode == api.Frozen
		switch verb {
		case "start":
			running = !running
		case "stop":
			running = running || frozen
		}
		if running {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// parallel bounds how many instances change their state at a time.
const parallel = 16

// act does the verb on all names, several at a time, and reports every one that failed.
func (a *app) act(ctx context.Context, c *client.Client, verb string, f *actionFlags, names []string) error {
	if len(names) == 1 {
		if err := a.actOne(ctx, c, verb, f, names[0], a.wait); err != nil {
			return withLogHint(err, names[0])
		}
		if f.console != "" && verb != "pause" {
			return a.console(ctx, c, names[0], f.console)
		}
		return nil
	}
	failed := make([]error, len(names))
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			slots <- struct{}{}
			failed[i] = a.actOne(ctx, c, verb, f, name, func(ctx context.Context, op *client.Operation) error { return op.Wait(ctx) })
			<-slots
		})
	}
	wg.Wait()
	bad := 0
	for i, err := range failed {
		if err != nil {
			bad++
			a.errorf("error: %s: %s\n", names[i], err)
		}
	}
	if bad > 0 {
		return fmt.Errorf("Some instances failed to %s", verb) //nolint:staticcheck // lxc's text
	}
	return nil
}

func withLogHint(err error, name string) error {
	var oe *client.OperationError
	if errors.As(err, &oe) && !oe.Cancelled() {
		return fmt.Errorf("%w\nTry `shoal info --show-log %s` for more info", err, name)
	}
	return err
}

func (a *app) actOne(ctx context.Context, c *client.Client, verb string, f *actionFlags, name string, wait func(context.Context, *client.Operation) error) error {
	put := api.InstanceStatePut{Action: verb, Timeout: f.timeout, Force: f.force, Stateful: f.stateful}
	switch verb {
	case "pause":
		put.Action = "freeze"
	case "start":
		i, _, err := c.Instance(ctx, name)
		if err != nil {
			return err
		}
		if i.StatusCode == api.Frozen {
			put.Action = "unfreeze"
		}
		put.Stateful = i.Stateful && !f.stateless
	}
	op, err := c.UpdateInstanceState(ctx, name, put)
	if err != nil {
		return err
	}
	return wait(ctx, op)
}

func (a *app) cmdDelete() *cobra.Command {
	var force, interactive bool
	cmd := &cobra.Command{
		Use: "delete <instance>[/<snapshot>] [<instance>[/<snapshot>]...]", Aliases: []string{"rm"}, Short: "Delete instances and snapshots", Args: nargs(1, -1),
		Example: "  shoal delete web\n  shoal delete web --force\n  shoal delete web/before-upgrade", ValidArgsFunction: completer(a.completeInstances),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.locals(args)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			in := bufio.NewReader(a.In)
			for _, name := range names {
				if interactive {
					a.printf("Remove %s (yes/no): ", name)
					answer, _ := in.ReadString('\n')
					if !oneOf(strings.TrimSpace(answer), []string{"yes", "y"}) {
						return errors.New("User aborted delete operation") //nolint:staticcheck // lxc's text
					}
				}
				if err := a.deleteOne(cmd.Context(), c, name, force); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of running instances")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "Require user confirmation")
	return cmd
}

func (a *app) deleteOne(ctx context.Context, c *client.Client, name string, force bool) error {
	if inst, snap, ok := strings.Cut(name, "/"); ok {
		op, err := c.DeleteInstanceSnapshot(ctx, inst, snap)
		if err != nil {
			return err
		}
		return a.wait(ctx, op)
	}
	i, _, err := c.Instance(ctx, name)
	if err != nil {
		return err
	}
	if i.StatusCode != api.Stopped && i.StatusCode != api.Error {
		if !force {
			return errors.New("The instance is currently running, stop it first or pass --force") //nolint:staticcheck // lxc's text
		}
		op, err := c.UpdateInstanceState(ctx, name, api.InstanceStatePut{Action: "stop", Timeout: -1, Force: true})
		if err == nil {
			err = a.wait(ctx, op)
		}
		if err != nil {
			return fmt.Errorf("Stopping instance failed: %w", err) //nolint:staticcheck // lxc's text
		}
		if i.Ephemeral {
			return nil // gone with its last process
		}
	}
	op, err := c.DeleteInstance(ctx, name)
	if err != nil {
		return err
	}
	return a.wait(ctx, op)
}

func (a *app) cmdRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename <instance>[/<snapshot>] <new-name>[/<new-snapshot>]", Short: "Rename instances and snapshots", Args: nargs(2, 2),
		Example:           "  shoal rename web www\n  shoal rename web/snap0 web/before-upgrade",
		ValidArgsFunction: completer(a.completeInstances).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := a.locals(args)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			op, err := a.renameOne(cmd.Context(), c, names[0], names[1])
			if err != nil {
				return err
			}
			return a.wait(cmd.Context(), op)
		},
	}
}

func (a *app) renameOne(ctx context.Context, c *client.Client, from, to string) (*client.Operation, error) {
	inst, snap, ok := strings.Cut(from, "/")
	if !ok {
		return c.RenameInstance(ctx, from, to)
	}
	other, name, ok := strings.Cut(to, "/")
	if !ok || other != inst {
		return nil, usagef("Invalid new snapshot name %q: it has to be %s/<new-snapshot>", to, inst)
	}
	return c.RenameInstanceSnapshot(ctx, inst, snap, name)
}
