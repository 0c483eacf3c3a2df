package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// owned are the devices of an instance or profile.
type owned struct {
	devices  api.Devices
	expanded api.Devices // what the owner gets from its profiles too; nil for profiles
	save     func(ctx context.Context, d api.Devices) error
}

// deviceOwner is a kind of object that has devices.
type deviceOwner struct {
	name     string
	load     func(ctx context.Context, c *client.Client, name string) (*owned, error)
	complete completer
}

func (a *app) instanceDevices() deviceOwner {
	return deviceOwner{name: "instance", complete: a.completeInstances, load: func(ctx context.Context, c *client.Client, name string) (*owned, error) {
		i, etag, err := c.Instance(ctx, name)
		if err != nil {
			return nil, err
		}
		return &owned{devices: i.Devices, expanded: i.ExpandedDevices, save: func(ctx context.Context, d api.Devices) error {
			i.Devices = d
			op, err := c.UpdateInstance(ctx, name, i.InstancePut, etag)
			if err != nil {
				return err
			}
			return a.wait(ctx, op)
		}}, nil
	}}
}

func (a *app) profileDevices() deviceOwner {
	return deviceOwner{name: "profile", complete: a.completeProfiles, load: func(ctx context.Context, c *client.Client, name string) (*owned, error) {
		p, etag, err := c.Profile(ctx, name)
		if err != nil {
			return nil, err
		}
		return &owned{devices: p.Devices, save: func(ctx context.Context, d api.Devices) error {
			p.Devices = d
			return c.UpdateProfile(ctx, name, p.ProfilePut, etag)
		}}, nil
	}}
}

// deviceCommand makes one verb: it loads the owner and calls run, and saves when run says so.
func (a *app) deviceCommand(o deviceOwner, verb, rest, short, example string, minArgs, maxArgs int, run func(name string, w *owned, args []string) (bool, error)) *cobra.Command {
	cmd := "shoal config device "
	if o.name == "profile" {
		cmd = "shoal profile device "
	}
	return &cobra.Command{
		Use: verb + " <" + o.name + "> " + rest, Short: short, Example: "  " + cmd + example, Args: nargs(minArgs, maxArgs),
		ValidArgsFunction: o.complete.first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], o.name)
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			w, err := o.load(cmd.Context(), c, name)
			if err != nil {
				return err
			}
			if w.devices == nil {
				w.devices = api.Devices{}
			}
			changed, err := run(name, w, args[1:])
			if err != nil || !changed {
				return err
			}
			return w.save(cmd.Context(), w.devices)
		},
	}
}

// find returns an own device, telling apart one that comes from a profile; done says what cannot be done to that.
func (w *owned) find(dev, done string) (map[string]string, error) {
	if d, ok := w.devices[dev]; ok {
		return d, nil
	}
	if _, ok := w.expanded[dev]; ok {
		return nil, fmt.Errorf("Device from profile(s) cannot be %s individual instance. Override device or modify profile instead", done) //nolint:staticcheck // lxc's text
	}
	return nil, fmt.Errorf("Device doesn't exist") //nolint:staticcheck // lxc's text
}

func (a *app) cmdDevice(o deviceOwner) *cobra.Command {
	add := a.deviceCommand(o, "add", "<device> <type> [key=value...]", "Add devices", "add x1 data disk source=/srv/data path=/data", 3, -1,
		func(_ string, w *owned, args []string) (bool, error) {
			kv, err := keyValues(args[2:])
			if err != nil {
				return false, err
			}
			if _, ok := w.devices[args[0]]; ok {
				return false, fmt.Errorf("The device already exists") //nolint:staticcheck // lxc's text
			}
			kv["type"] = args[1]
			w.devices[args[0]] = kv
			return true, nil
		})
	a.afterwards(add, func(name string, args []string) { a.sayf("Device %s added to %s", args[1], name) })
	remove := a.deviceCommand(o, "remove", "<name>...", "Remove devices", "remove x1 data", 2, -1,
		func(_ string, w *owned, args []string) (bool, error) {
			for _, dev := range args {
				if _, err := w.find(dev, "removed from"); err != nil {
					return false, err
				}
				delete(w.devices, dev)
			}
			return true, nil
		})
	remove.Aliases = []string{"rm"}
	a.afterwards(remove, func(name string, args []string) {
		for _, dev := range args[1:] {
			a.sayf("Device %s removed from %s", dev, name)
		}
	})
	list := a.deviceCommand(o, "list", "", "List devices", "list x1", 1, 1, func(_ string, w *owned, _ []string) (bool, error) {
		for _, d := range slices.Sorted(maps.Keys(w.devices)) {
			a.printf("%s\n", d)
		}
		return false, nil
	})
	list.Aliases = []string{"ls"}
	show := a.deviceCommand(o, "show", "", "Show full device configuration", "show x1", 1, 1, func(_ string, w *owned, _ []string) (bool, error) {
		return false, a.yaml(w.devices)
	})
	cmds := []*cobra.Command{add, list, remove, show, a.deviceGet(o), a.deviceSet(o), a.deviceUnset(o)}
	if o.name == "instance" {
		cmds = append(cmds, a.deviceOverride(o))
	}
	return group("device", "Manage devices", cmds...)
}

// afterwards prints something after a command has succeeded.
func (a *app) afterwards(cmd *cobra.Command, say func(name string, args []string)) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := run(cmd, args); err != nil {
			return err
		}
		name, _ := a.local(args[0])
		say(name, args)
		return nil
	}
}

func (a *app) deviceGet(o deviceOwner) *cobra.Command {
	return a.deviceCommand(o, "get", "<device> <key>", "Get values for device configuration keys", "get x1 root size", 3, 3,
		func(_ string, w *owned, args []string) (bool, error) {
			d, ok := w.devices[args[0]]
			if !ok {
				return false, fmt.Errorf("Device doesn't exist") //nolint:staticcheck // lxc's text
			}
			a.printf("%s\n", d[args[1]])
			return false, nil
		})
}

func (a *app) deviceSet(o deviceOwner) *cobra.Command {
	return a.deviceCommand(o, "set", "<device> <key>=<value>...", "Set device configuration keys", "set x1 root size=20GiB", 3, -1,
		func(_ string, w *owned, args []string) (bool, error) {
			d, err := w.find(args[0], "modified for")
			if err != nil {
				return false, err
			}
			kv, err := a.assignments(args[1:])
			if err != nil {
				return false, err
			}
			maps.Copy(d, kv)
			return true, nil
		})
}

func (a *app) deviceUnset(o deviceOwner) *cobra.Command {
	return a.deviceCommand(o, "unset", "<device> <key>", "Unset device configuration keys", "unset x1 root size", 3, 3,
		func(_ string, w *owned, args []string) (bool, error) {
			d, err := w.find(args[0], "modified for")
			if err != nil {
				return false, err
			}
			delete(d, args[1])
			return true, nil
		})
}

func (a *app) deviceOverride(o deviceOwner) *cobra.Command {
	cmd := a.deviceCommand(o, "override", "<device> [key=value...]", "Copy profile inherited devices and override configuration keys", "override x1 root size=20GiB", 2, -1,
		func(_ string, w *owned, args []string) (bool, error) {
			kv, err := keyValues(args[1:])
			if err != nil {
				return false, err
			}
			if _, ok := w.devices[args[0]]; ok {
				return false, fmt.Errorf("The device already exists") //nolint:staticcheck // lxc's text
			}
			inherited, ok := w.expanded[args[0]]
			if !ok {
				return false, fmt.Errorf("The profile device doesn't exist") //nolint:staticcheck // lxc's text
			}
			d := maps.Clone(inherited)
			maps.Copy(d, kv)
			w.devices[args[0]] = d
			return true, nil
		})
	a.afterwards(cmd, func(name string, args []string) { a.sayf("Device %s overridden for %s", args[1], name) })
	return cmd
}
