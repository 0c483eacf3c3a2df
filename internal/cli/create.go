package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// createFlags are the flags of init and launch.
type createFlags struct {
	config, devices, profiles []string
	network, storage, flavour string
	target                    string
	empty, ephemeral, vm      bool
	noProfiles                bool
}

func (f *createFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVarP(&f.config, "config", "c", nil, "Config key/value to apply to the new instance")
	fs.StringArrayVarP(&f.devices, "device", "d", nil, "New key/value to apply to a specific device")
	fs.BoolVar(&f.empty, "empty", false, "Create an empty instance")
	fs.BoolVarP(&f.ephemeral, "ephemeral", "e", false, "Ephemeral instance")
	fs.StringVarP(&f.network, "network", "n", "", "Network name")
	fs.BoolVar(&f.noProfiles, "no-profiles", false, "Create the instance with no profiles applied")
	fs.StringArrayVarP(&f.profiles, "profile", "p", nil, "Profile to apply to the new instance")
	fs.StringVarP(&f.storage, "storage", "s", "", "Storage pool name")
	fs.StringVarP(&f.flavour, "type", "t", "", "Instance type")
	fs.BoolVar(&f.vm, "vm", false, "Create a virtual machine")
	targetFlag(cmd, &f.target)
}

func (a *app) cmdInit() *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use: "init <image> [<name>]", Short: "Create instances from images", Args: nargs(0, 2), ValidArgsFunction: completer(a.completeImages).first(),
		Example: "  shoal init debian web\n  shoal init debian web -c limits.memory=1GiB -d root,size=20GiB\n  shoal init debian web < config.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			_, name, err := a.create(cmd, &f, args)
			if err == nil && f.network == "" && name != "" {
				return nil
			}
			return err
		},
	}
	f.add(cmd)
	return cmd
}

func (a *app) cmdLaunch() *cobra.Command {
	var f createFlags
	var console string
	cmd := &cobra.Command{
		Use: "launch <image> [<name>]", Short: "Create and start instances from images", Args: nargs(0, 2), ValidArgsFunction: completer(a.completeImages).first(),
		Example: "  shoal launch debian web\n  shoal launch debian web --console\n  shoal launch debian web < config.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.create(cmd, &f, args)
			if err != nil {
				return err
			}
			a.sayf("Starting %s", name)
			op, err := c.UpdateInstanceState(cmd.Context(), name, api.InstanceStatePut{Action: "start", Timeout: -1})
			if err == nil {
				err = a.wait(cmd.Context(), op)
			}
			if err != nil {
				return fmt.Errorf("%w\nTry `shoal info %s --show-log` for more info", err, name)
			}
			if console != "" {
				return a.console(cmd.Context(), c, name, console)
			}
			return nil
		},
	}
	f.add(cmd)
	consoleFlag(cmd, &console)
	return cmd
}

func consoleFlag(cmd *cobra.Command, console *string) {
	cmd.Flags().StringVar(console, "console", "", "Immediately attach to the console")
	cmd.Flags().Lookup("console").NoOptDefVal = "console"
}

// create makes an instance and returns its name, which the server chooses when the user has not.
func (a *app) create(cmd *cobra.Command, f *createFlags, args []string) (*client.Client, string, error) {
	ctx := cmd.Context()
	image, name, err := a.createNames(f, args)
	if err != nil {
		return nil, "", err
	}
	doc, err := a.stdinDocument()
	if err != nil {
		return nil, "", err
	}
	req := api.InstancesPost{Name: name, InstanceType: f.flavour, Type: api.TypeContainer}
	if err := unmarshalYAML(doc, &req.InstancePut); err != nil {
		return nil, "", err
	}
	if f.vm {
		req.Type = api.TypeVirtualMachine
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, "", err
	}
	if err := f.apply(ctx, c, &req.InstancePut); err != nil {
		return nil, "", err
	}
	req.Source = api.InstanceSource{Type: "none"}
	if !f.empty {
		i, _, err := c.ResolveImage(ctx, image)
		if err != nil {
			return nil, "", err
		}
		if i.Type == api.TypeVirtualMachine && !f.vm {
			return nil, "", errors.New("Asked for a VM but image is of type container") //nolint:staticcheck // lxc's text
		}
		req.Source = api.InstanceSource{Type: "image", Fingerprint: i.Fingerprint}
	}
	if name == "" {
		a.sayf("Creating the instance")
	} else {
		a.sayf("Creating %s", name)
	}
	op, err := c.CreateInstance(ctx, req)
	if err == nil {
		err = a.wait(ctx, op)
	}
	if err != nil {
		return nil, "", fmt.Errorf("Failed instance creation: %w", err) //nolint:staticcheck // lxc's text
	}
	if name == "" {
		if name, err = nameOf(op.Last()); err != nil {
			return nil, "", err
		}
		a.sayf("Instance name is: %s", name)
	}
	return c, name, nil
}

func (a *app) createNames(f *createFlags, args []string) (image, name string, err error) {
	switch {
	case f.empty && len(args) > 1:
		return "", "", usagef("--empty cannot be combined with an image name")
	case f.empty && len(args) == 1:
		name, err = a.local(args[0])
		return "", name, err
	case !f.empty && len(args) == 0:
		return "", "", usagef("Missing image name; \"shoal image list\" shows what there is, --empty makes an instance without one")
	case f.empty:
		return "", "", nil
	}
	if image, err = a.named(args[0], "image"); err != nil {
		return "", "", err
	}
	if len(args) > 1 {
		name, err = a.local(args[1])
	} else {
		_, err = a.local("") // the instance goes to the default server
	}
	return image, name, err
}

// nameOf reads the new instance's name from the operation that made it.
func nameOf(op api.Operation) (string, error) {
	for _, kind := range []string{"instances", "containers"} {
		if urls := op.Resources[kind]; len(urls) == 1 {
			path, _, _ := strings.Cut(urls[0], "?")
			return path[strings.LastIndexByte(path, '/')+1:], nil
		}
	}
	return "", errors.New("Failed to get instance name from operation") //nolint:staticcheck // lxc's text
}

// apply puts the flags over what came from standard input.
func (f *createFlags) apply(ctx context.Context, c *client.Client, put *api.InstancePut) error {
	config, err := keyValues(f.config)
	if err != nil {
		return err
	}
	if put.Config == nil {
		put.Config = api.Config{}
	}
	maps.Copy(put.Config, config)
	if put.Devices == nil {
		put.Devices = api.Devices{}
	}
	switch {
	case f.noProfiles:
		put.Profiles = []string{}
	case len(f.profiles) > 0:
		put.Profiles = f.profiles
	}
	put.Ephemeral = put.Ephemeral || f.ephemeral
	if f.network != "" {
		nic, err := nicFor(ctx, c, f.network)
		if err != nil {
			return fmt.Errorf("Failed loading network %q: %w", f.network, err) //nolint:staticcheck // lxc's text
		}
		nic["name"] = "eth0"
		put.Devices["eth0"] = nic
	}
	if f.storage != "" {
		if _, _, err := c.StoragePool(ctx, f.storage); err != nil {
			return fmt.Errorf("Failed loading storage pool %q: %w", f.storage, err) //nolint:staticcheck // lxc's text
		}
		put.Devices["root"] = map[string]string{"type": "disk", "path": "/", "pool": f.storage}
	}
	return applyDevices(ctx, c, put, f.devices)
}

// applyDevices reads "-d device,key=value". A device of a profile is copied first.
func applyDevices(ctx context.Context, c *client.Client, put *api.InstancePut, flags []string) error {
	var inherited api.Devices
	for _, flag := range flags {
		dev, pairs, ok := strings.Cut(flag, ",")
		if !ok || dev == "" {
			return usagef("Bad device override syntax, expecting <device>,<key>=<value>: %s", flag)
		}
		kv, err := keyValues(strings.Split(pairs, ","))
		if err != nil {
			return usagef("Bad device override syntax, expecting <device>,<key>=<value>: %s", flag)
		}
		if put.Devices[dev] == nil {
			if inherited == nil {
				if inherited, err = profileDevices(ctx, c, put.Profiles); err != nil {
					return err
				}
			}
			if put.Devices[dev] = maps.Clone(inherited[dev]); put.Devices[dev] == nil {
				put.Devices[dev] = map[string]string{}
			}
		}
		maps.Copy(put.Devices[dev], kv)
		if put.Devices[dev]["type"] == "" {
			return fmt.Errorf("device %q comes from no profile; give its type too: -d %s,type=…", dev, dev)
		}
	}
	return nil
}

// profileDevices are the devices that profiles give, the last one wins; without any, those of the default profile.
func profileDevices(ctx context.Context, c *client.Client, profiles []string) (api.Devices, error) {
	if len(profiles) == 0 {
		profiles = []string{"default"}
	}
	all := api.Devices{}
	for _, name := range profiles {
		p, _, err := c.Profile(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("Failed loading profile %q: %w", name, err) //nolint:staticcheck // lxc's text
		}
		maps.Copy(all, p.Devices)
	}
	return all, nil
}
