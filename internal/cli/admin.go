package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

// poll is how often the daemon is asked whether it has started or stopped.
const poll = 20 * time.Millisecond

func (a *app) cmdAdmin() *cobra.Command {
	cmd := group("admin", "Manage the daemon", a.adminInit(), a.adminShutdown(), a.adminWaitReady(), a.adminEtcdDebug())
	cmd.PersistentPreRun = func(*cobra.Command, []string) { a.forceLocal = true } // whatever the default server is
	return cmd
}

func (a *app) adminWaitReady() *cobra.Command {
	var timeout int
	cmd := &cobra.Command{
		Use: "waitready", Short: "Wait until the daemon answers requests", Args: nargs(0, 0), Example: "  shoal admin waitready --timeout 30",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.until(cmd.Context(), timeout, "the daemon is not ready", func(ctx context.Context) error {
				c, err := a.connect(ctx)
				if err != nil {
					return err
				}
				defer c.Close()
				return c.Ready(ctx)
			})
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "Number of seconds to wait before giving up; 0 waits for ever")
	return cmd
}

// until tries f again and again until it succeeds or the time (seconds, 0 for ever) is over.
func (a *app) until(ctx context.Context, timeout int, what string, f func(context.Context) error) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(timeout)*time.Second)
		defer cancel()
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var last error
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s after %d seconds: %w", what, timeout, errors.Join(last))
		case <-tick.C:
		}
	}
}

func (a *app) adminShutdown() *cobra.Command {
	var timeout int
	var instances bool
	cmd := &cobra.Command{
		Use: "shutdown", Short: "Stop the daemon; instances go on", Args: nargs(0, 0),
		Example: "  shoal admin shutdown --timeout 60\n  shoal admin shutdown --instances    # before the host goes down",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			if err := c.Shutdown(cmd.Context(), instances); err != nil {
				return err
			}
			c.Close()
			return a.until(cmd.Context(), timeout, "the daemon is still there", func(ctx context.Context) error {
				c, err := a.connect(ctx)
				var gone *client.ConnectError
				if errors.As(err, &gone) {
					return nil
				}
				if err != nil {
					return err
				}
				c.Close()
				return errors.New("its socket still answers")
			})
		},
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "Number of seconds to wait before giving up; 0 waits for ever")
	cmd.Flags().BoolVar(&instances, "instances", false, "Stop the instances too, by boot.stop.priority; the next start brings them back")
	return cmd
}

// setup is what "admin init" makes.
type setup struct {
	auto, minimal bool
	driver, size  string
	source        string
	network       string
	noNetwork     bool
}

func (a *app) adminInit() *cobra.Command {
	var s setup
	cmd := &cobra.Command{
		Use: "init --auto|--minimal", Short: "Make a storage pool, a network and the default profile", Args: nargs(0, 0),
		Long: `Make a storage pool, a network and the default profile

Creates the storage pool "default", the bridge "shoalbr0" unless there is a managed bridge, and the devices root and eth0 in
the default profile. What is there is left as it is, so it can be run again. --auto takes the best storage driver that the
host has, --minimal a plain directory; --storage-backend decides otherwise.`,
		Example: "  shoal admin init --auto\n  shoal admin init --minimal\n  shoal admin init --auto --storage-backend btrfs --storage-size 20GiB",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.auto == s.minimal {
				return usagef("Give either --auto or --minimal")
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return a.initServer(cmd.Context(), c, s)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&s.auto, "auto", false, "Choose by what the host has")
	f.BoolVar(&s.minimal, "minimal", false, "Use what works everywhere")
	f.StringVar(&s.driver, "storage-backend", "", "Storage driver of the pool (dir or btrfs)")
	f.StringVar(&s.size, "storage-size", "", "Size of the pool when it is kept in a file, for example 20GiB")
	f.StringVar(&s.source, "storage-source", "", "Device or directory of the pool")
	f.StringVar(&s.network, "network-address", "", "IPv4 address and prefix of the bridge, for example 10.20.0.1/24")
	f.BoolVar(&s.noNetwork, "no-network", false, "Make no bridge")
	return cmd
}

const (
	initPool   = "default"
	initBridge = "shoalbr0"
)

func (a *app) initServer(ctx context.Context, c *client.Client, s setup) error {
	pool, err := a.initPool(ctx, c, s)
	if err != nil {
		return err
	}
	bridge := ""
	if !s.noNetwork {
		if bridge, err = a.initBridge(ctx, c, s); err != nil {
			return err
		}
	}
	if err := a.initProfile(ctx, c, pool, bridge); err != nil {
		return err
	}
	return a.sayNext(ctx, c)
}

// sayNext tells who has just set up a server what to do with it.
func (a *app) sayNext(ctx context.Context, c *client.Client) error {
	images, err := c.Images(ctx, "")
	if err != nil {
		return err
	}
	switch {
	case len(images) == 0:
		a.sayf("\nReady for a first image:\n  shoal image import metadata.tar.xz rootfs.squashfs --alias NAME\n  shoal launch NAME web")
	case len(images[0].Aliases) > 0:
		a.sayf("\nReady: shoal launch %s web", images[0].Aliases[0].Name)
	default:
		a.sayf("\nReady: shoal launch %.12s web", images[0].Fingerprint)
	}
	return nil
}

// initPool returns the pool that instances will use, which it makes unless there is one.
func (a *app) initPool(ctx context.Context, c *client.Client, s setup) (string, error) {
	pools, err := c.StoragePools(ctx)
	if err != nil {
		return "", err
	}
	for _, p := range pools {
		if p.Name == initPool || len(pools) == 1 {
			a.sayf("Storage pool %s (%s) is there already", p.Name, p.Driver)
			return p.Name, nil
		}
	}
	if s.driver == "" {
		s.driver = "dir"
		if s.auto {
			server, _, err := c.Server(ctx)
			if err != nil {
				return "", err
			}
			s.driver = bestDriver(server.Environment.StorageDrivers)
		}
	}
	config := api.Config{}
	if s.size != "" {
		config["size"] = s.size
	}
	if s.source != "" {
		config["source"] = s.source
	}
	err = c.CreateStoragePool(ctx, api.StoragePoolsPost{StoragePoolPut: api.StoragePoolPut{Config: config}, Name: initPool, Driver: s.driver})
	if err != nil {
		return "", fmt.Errorf("create storage pool %s (%s): %w", initPool, s.driver, err)
	}
	a.sayf("Storage pool %s created: %s", initPool, a.poolWords(ctx, c, s.driver))
	return initPool, nil
}

// bestDriver prefers a driver with cheap snapshots and hard limits.
func bestDriver(drivers []api.ServerStorageDriver) string {
	for _, d := range drivers {
		if d.Name == "btrfs" {
			return d.Name
		}
	}
	return "dir"
}

// initBridge returns the bridge that instances will use, which it makes unless there is a managed one.
func (a *app) initBridge(ctx context.Context, c *client.Client, s setup) (string, error) {
	networks, err := c.Networks(ctx)
	if err != nil {
		return "", err
	}
	found := ""
	for _, n := range networks {
		if n.Managed && n.Type == "bridge" && (found == "" || n.Name == initBridge) {
			found = n.Name
		}
	}
	if found != "" {
		a.sayf("Network %s is there already", found)
		return found, nil
	}
	config := api.Config{}
	if s.network != "" {
		config["ipv4.address"] = s.network
		config["ipv4.nat"] = "true"
	}
	err = c.CreateNetwork(ctx, api.NetworksPost{NetworkPut: api.NetworkPut{Config: config}, Name: initBridge, Type: "bridge"})
	if err != nil {
		return "", fmt.Errorf("create network %s: %w", initBridge, err)
	}
	a.sayf("Network %s created%s", initBridge, networkWords(ctx, c, initBridge))
	return initBridge, nil
}

// poolWords says what a new pool is: its driver and, where the server tells, its size and place.
func (a *app) poolWords(ctx context.Context, c *client.Client, driver string) string {
	words := driver
	if r, err := c.StoragePoolResources(ctx, initPool); err == nil && r.Space.Total > 0 {
		words += fmt.Sprintf(", %s", sizeIEC(int64(r.Space.Total)))
	}
	if p, _, err := c.StoragePool(ctx, initPool); err == nil && p.Config["source"] != "" {
		words += " in " + p.Config["source"]
	}
	return words
}

// networkWords says which addresses a new network has, nothing where the server does not tell.
func networkWords(ctx context.Context, c *client.Client, name string) string {
	n, _, err := c.Network(ctx, name)
	if err != nil {
		return ""
	}
	var addresses []string
	for _, k := range []string{"ipv4.address", "ipv6.address"} {
		if v := n.Config[k]; v != "" && v != "none" {
			addresses = append(addresses, v)
		}
	}
	if len(addresses) == 0 {
		return ""
	}
	return ": " + strings.Join(addresses, ", ")
}

// initProfile gives the default profile a root disk and a network interface unless it has them.
func (a *app) initProfile(ctx context.Context, c *client.Client, pool, bridge string) error {
	p, etag, err := c.Profile(ctx, "default")
	if err != nil {
		return err
	}
	devices := maps.Clone(p.Devices)
	if devices == nil {
		devices = api.Devices{}
	}
	var added []string
	if _, d := rootDisk(api.Instance{ExpandedDevices: devices}); d == nil {
		devices["root"] = map[string]string{"type": "disk", "path": "/", "pool": pool}
		added = append(added, fmt.Sprintf("a root disk in pool %s", pool))
	}
	hasNIC := bridge == ""
	for name, d := range devices {
		hasNIC = hasNIC || d["type"] == "nic" || name == "eth0"
	}
	if !hasNIC {
		devices["eth0"] = map[string]string{"type": "nic", "name": "eth0", "network": bridge}
		added = append(added, fmt.Sprintf("eth0 on network %s", bridge))
	}
	if len(added) == 0 {
		a.sayf("Profile default has its devices already")
		return nil
	}
	p.Devices = devices
	if err := c.UpdateProfile(ctx, "default", p.ProfilePut, etag); err != nil {
		return fmt.Errorf("update profile default: %w", err)
	}
	a.sayf("Profile default gives instances %s", strings.Join(added, " and "))
	return nil
}
