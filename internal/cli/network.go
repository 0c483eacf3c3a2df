package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

const networkHeader = `This is a YAML representation of the network.
Any line starting with a '# will be ignored.

Note that only the configuration and the description can be changed.`

func (a *app) networkNoun() noun {
	return noun{name: "network", arg: "<network>", header: networkHeader, complete: a.completeNetworks,
		load: func(ctx context.Context, c *client.Client, name string) (*document, error) {
			n, etag, err := c.Network(ctx, name)
			if err != nil {
				return nil, err
			}
			n.UsedBy = sorted(n.UsedBy)
			edit := *n
			return &document{show: n, edit: &edit, config: &edit.Config, save: func(ctx context.Context) error {
				if !n.Managed {
					return fmt.Errorf("Only managed networks can be modified") //nolint:staticcheck // lxc's text
				}
				return c.UpdateNetwork(ctx, name, edit.NetworkPut, etag)
			}}, nil
		}}
}

func (a *app) cmdNetwork() *cobra.Command {
	var target string
	subs := append(a.nounCommands(a.networkNoun()), a.networkInfo(), a.networkCreate())
	for _, cmd := range subs {
		targetFlag(cmd, &target)
	}
	subs = append(subs, a.networkList(), a.networkDelete(), a.networkRename(), a.networkLeases(), a.networkAttach(), a.networkDetach())
	return group("network", "Manage and attach instances to networks", subs...)
}

func (a *app) networkList() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [remote:]", Aliases: []string{"ls"}, Short: "List available networks", Args: nargs(0, 1), Example: "  shoal network list",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connectTo(cmd.Context(), args)
			if err != nil {
				return err
			}
			all, err := c.Networks(cmd.Context())
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, n := range all {
				if n.Type == "loopback" || n.Type == "unknown" {
					continue
				}
				rows = append(rows, []string{n.Name, n.Type, upperYesNo(n.Managed), n.Config["ipv4.address"], n.Config["ipv6.address"],
					n.Description, fmt.Sprint(len(n.UsedBy)), strings.ToUpper(n.Status)})
			}
			sortRows(rows)
			return a.table(format, []string{"NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE"}, rows, all)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) networkInfo() *cobra.Command {
	return &cobra.Command{
		Use: "info <network>", Short: "Get runtime information on networks", Args: nargs(1, 1), Example: "  shoal network info shoalbr0",
		ValidArgsFunction: completer(a.completeNetworks).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "network")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			s, err := c.NetworkState(cmd.Context(), name)
			if err != nil {
				return err
			}
			a.printNetworkState(name, s)
			return nil
		},
	}
}

func (a *app) printNetworkState(name string, s *api.NetworkState) {
	a.printf("Name: %s\n", name)
	a.printf("MAC address: %s\n", s.Hwaddr)
	a.printf("MTU: %d\n", s.Mtu)
	a.printf("State: %s\n", s.State)
	a.printf("Type: %s\n", s.Type)
	if len(s.Addresses) > 0 {
		a.printf("\nIP addresses:\n")
		for _, addr := range s.Addresses {
			a.printf("  %s\t%s/%s (%s)\n", addr.Family, addr.Address, addr.Netmask, addr.Scope)
		}
	}
	a.printf("\nNetwork usage:\n")
	a.printf("  Bytes received: %s\n", sizeSI(s.Counters.BytesReceived))
	a.printf("  Bytes sent: %s\n", sizeSI(s.Counters.BytesSent))
	a.printf("  Packets received: %d\n", s.Counters.PacketsReceived)
	a.printf("  Packets sent: %d\n", s.Counters.PacketsSent)
	if s.Bridge != nil {
		a.printf("\nBridge:\n")
		a.printf("  ID: %s\n", s.Bridge.ID)
		a.printf("  STP: %t\n", s.Bridge.STP)
		a.printf("  Forward delay: %d\n", s.Bridge.ForwardDelay)
		a.printf("  Default VLAN ID: %d\n", s.Bridge.VLANDefault)
		a.printf("  VLAN filtering: %t\n", s.Bridge.VLANFiltering)
		a.printf("  Upper devices: %s\n", strings.Join(s.Bridge.UpperDevices, ", "))
	}
}

func (a *app) networkCreate() *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use: "create <network> [key=value...]", Short: "Create new networks", Args: nargs(1, -1),
		Example: "  shoal network create br1 ipv4.address=10.20.0.1/24 ipv4.nat=true",
		RunE: func(cmd *cobra.Command, args []string) error {
			kv, err := keyValues(args[1:])
			if err != nil {
				return err
			}
			return a.simple(cmd, args[0], "network", func(ctx context.Context, c *client.Client, name string) error {
				return c.CreateNetwork(ctx, api.NetworksPost{NetworkPut: api.NetworkPut{Config: kv}, Name: name, Type: kind})
			}, "Network %s created")
		},
	}
	cmd.Flags().StringVarP(&kind, "type", "t", "", "Network type")
	return cmd
}

func (a *app) networkDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete <network>", Aliases: []string{"rm"}, Short: "Delete networks", Args: nargs(1, 1), Example: "  shoal network delete br1",
		ValidArgsFunction: completer(a.completeNetworks).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd, args[0], "network", func(ctx context.Context, c *client.Client, name string) error { return c.DeleteNetwork(ctx, name) },
				"Network %s deleted")
		},
	}
}

func (a *app) networkRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename <network> <new-name>", Aliases: []string{"mv"}, Short: "Rename networks", Args: nargs(2, 2), Example: "  shoal network rename br1 br2",
		ValidArgsFunction: completer(a.completeNetworks).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.simple(cmd, args[0], "network", func(ctx context.Context, c *client.Client, name string) error {
				return c.RenameNetwork(ctx, name, args[1])
			}, "Network %s renamed to "+strings.ReplaceAll(args[1], "%", "%%"))
		},
	}
}

func (a *app) networkLeases() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list-leases <network>", Short: "List DHCP leases", Args: nargs(1, 1), Example: "  shoal network list-leases shoalbr0",
		ValidArgsFunction: completer(a.completeNetworks).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "network")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			all, err := c.NetworkLeases(cmd.Context(), name)
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, l := range all {
				rows = append(rows, []string{l.Hostname, l.Hwaddr, l.Address, strings.ToUpper(l.Type)})
			}
			sortRows(rows)
			return a.table(format, []string{"HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"}, rows, all)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) networkAttach() *cobra.Command {
	return &cobra.Command{
		Use: "attach <network> <instance> [<device name>] [<interface name>]", Short: "Attach network interfaces to instances", Args: nargs(2, 4),
		Example: "  shoal network attach br1 web eth1", ValidArgsFunction: completer(a.completeNetworks).then(a.completeInstances),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "network")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			nic, err := nicFor(cmd.Context(), c, name)
			if err != nil {
				return err
			}
			dev := name
			if len(args) > 2 {
				dev = args[2]
			}
			if len(args) > 3 {
				nic["name"] = args[3]
			}
			w, err := a.instanceDevices().load(cmd.Context(), c, args[1])
			if err != nil {
				return err
			}
			if _, ok := w.devices[dev]; ok {
				return fmt.Errorf("The device already exists") //nolint:staticcheck // lxc's text
			}
			if w.devices == nil {
				w.devices = api.Devices{}
			}
			w.devices[dev] = nic
			return w.save(cmd.Context(), w.devices)
		},
	}
}

// nicFor is the device that attaches to a network.
func nicFor(ctx context.Context, c *client.Client, network string) (map[string]string, error) {
	n, _, err := c.Network(ctx, network)
	if err != nil {
		return nil, err
	}
	if n.Managed {
		return map[string]string{"type": "nic", "network": network}, nil
	}
	kind := "macvlan"
	if n.Type == "bridge" {
		kind = "bridged"
	}
	return map[string]string{"type": "nic", "nictype": kind, "parent": network}, nil
}

func (a *app) networkDetach() *cobra.Command {
	return &cobra.Command{
		Use: "detach <network> <instance> [<device name>]", Short: "Detach network interfaces from instances", Args: nargs(2, 3),
		Example: "  shoal network detach br1 web", ValidArgsFunction: completer(a.completeNetworks).then(a.completeInstances),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "network")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			w, err := a.instanceDevices().load(cmd.Context(), c, args[1])
			if err != nil {
				return err
			}
			dev := ""
			if len(args) > 2 {
				dev = args[2]
			}
			if dev, err = attached(w.devices, name, dev); err != nil {
				return err
			}
			delete(w.devices, dev)
			return w.save(cmd.Context(), w.devices)
		},
	}
}

// attached finds the NIC of a network among devices.
func attached(devices api.Devices, network, dev string) (string, error) {
	on := func(d map[string]string) bool {
		return d["type"] == "nic" && (d["network"] == network || d["parent"] == network)
	}
	if dev != "" {
		d, ok := devices[dev]
		switch {
		case !ok:
			return "", fmt.Errorf("The specified device doesn't exist") //nolint:staticcheck // lxc's text
		case !on(d):
			return "", fmt.Errorf("The specified device doesn't match the network") //nolint:staticcheck // lxc's text
		}
		return dev, nil
	}
	for name, d := range devices {
		if !on(d) {
			continue
		}
		if dev != "" {
			return "", fmt.Errorf("More than one device matches, specify the device name") //nolint:staticcheck // lxc's text
		}
		dev = name
	}
	if dev == "" {
		return "", fmt.Errorf("No device found for this network") //nolint:staticcheck // lxc's text
	}
	return dev, nil
}
