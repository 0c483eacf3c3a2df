package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (a *app) cmdInfo() *cobra.Command {
	var showLog, resources bool
	var target, format string
	cmd := &cobra.Command{
		Use: "info [<instance>]", Short: "Show instance or server information", Args: nargs(0, 1), ValidArgsFunction: completer(a.completeInstances).first(),
		Long: `Show instance or server information

Without an instance: the server, its configuration, and what was found on the host (runtime, control groups, storage,
firewall). On a terminal that is a summary; elsewhere, or with --format yaml, all that the server says.`,
		Example: "  shoal info\n  shoal info --format yaml\n  shoal info --resources\n  shoal info web --show-log",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				var err error
				if name, err = a.local(args[0]); err != nil {
					return err
				}
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case name != "":
				return a.instanceInfo(cmd.Context(), c, name, showLog)
			case resources:
				return a.resources(cmd.Context(), c)
			}
			s, _, err := c.Server(cmd.Context())
			if err != nil {
				return err
			}
			_, tty := terminal(a.Out)
			switch {
			case format == "yaml", format == "" && !tty:
				return a.yaml(s)
			case format == "summary", format == "":
				a.serverSummary(s)
				return nil
			}
			return usagef("Invalid format %q: summary or yaml", format)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "Format of the server's information (summary or yaml)")
	cmd.Flags().BoolVar(&showLog, "show-log", false, "Show the instance's last 100 log lines?")
	cmd.Flags().BoolVar(&resources, "resources", false, "Show the resources available to the server")
	targetFlag(cmd, &target)
	return cmd
}

// resources prints the host's hardware as the server describes it.
func (a *app) resources(ctx context.Context, c *client.Client) error {
	raw, err := c.Resources(ctx)
	if err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("resources: %w", err)
	}
	return a.yaml(v)
}

func (a *app) instanceInfo(ctx context.Context, c *client.Client, name string, showLog bool) error {
	i, _, err := c.InstanceFull(ctx, name)
	if err != nil {
		return err
	}
	const layout = "2006/01/02 15:04 MST"
	stamp := func(t time.Time) string { return t.UTC().Format(layout) }
	a.printf("Name: %s\n", i.Name)
	a.printf("Status: %s\n", strings.ToUpper(i.Status))
	kind := i.Type
	if kind == "" {
		kind = api.TypeContainer
	}
	if i.Ephemeral {
		kind += " (ephemeral)"
	}
	a.printf("Type: %s\n", kind)
	a.printf("Architecture: %s\n", i.Architecture)
	if i.Location != "" && i.Location != "none" {
		a.printf("Location: %s\n", i.Location)
	}
	if i.State != nil && i.State.Pid != 0 {
		a.printf("PID: %d\n", i.State.Pid)
	}
	if timeIsSet(i.CreatedAt) {
		a.printf("Created: %s\n", stamp(i.CreatedAt))
	}
	if timeIsSet(i.LastUsedAt) {
		a.printf("Last Used: %s\n", stamp(i.LastUsedAt))
	}
	if i.State != nil && i.State.Pid != 0 {
		a.printState(i.State)
	}
	if err := a.printSnapshots(i.Snapshots); err != nil {
		return err
	}
	if !showLog {
		return nil
	}
	return a.printLog(ctx, c, i)
}

// printState prints what a running instance uses.
func (a *app) printState(s *api.InstanceState) {
	a.printf("\nResources:\n")
	a.printf("  Processes: %d\n", s.Processes)
	lines := ""
	for _, d := range sortedKeys(s.Disk) {
		if s.Disk[d].Usage > 0 {
			lines += fmt.Sprintf("    %s: %s\n", d, sizeIEC(s.Disk[d].Usage))
		}
	}
	a.section("Disk usage", lines)
	lines = ""
	if s.CPU.Usage > 0 {
		lines = fmt.Sprintf("    CPU usage (in seconds): %d\n", s.CPU.Usage/1_000_000_000)
	}
	a.section("CPU usage", lines)
	lines = ""
	for _, m := range []struct {
		name string
		n    int64
	}{{"Memory (current)", s.Memory.Usage}, {"Memory (peak)", s.Memory.UsagePeak}, {"Swap (current)", s.Memory.SwapUsage}, {"Swap (peak)", s.Memory.SwapUsagePeak}} {
		if m.n > 0 {
			lines += fmt.Sprintf("    %s: %s\n", m.name, sizeIEC(m.n))
		}
	}
	a.section("Memory usage", lines)
	lines = ""
	for _, name := range sortedKeys(s.Network) {
		lines += networkLines(name, s.Network[name])
	}
	a.section("Network usage", lines)
}

func (a *app) section(title, lines string) {
	if lines != "" {
		a.printf("  %s:\n%s", title, lines)
	}
}

func networkLines(name string, n api.InstanceStateNetwork) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "      "+format+"\n", args...) }
	fmt.Fprintf(&b, "    %s:\n", name)
	line("Type: %s", n.Type)
	line("State: %s", strings.ToUpper(n.State))
	if n.HostName != "" {
		line("Host interface: %s", n.HostName)
	}
	if n.Hwaddr != "" {
		line("MAC address: %s", n.Hwaddr)
	}
	if n.Mtu != 0 {
		line("MTU: %d", n.Mtu)
	}
	line("Bytes received: %s", sizeSI(n.Counters.BytesReceived))
	line("Bytes sent: %s", sizeSI(n.Counters.BytesSent))
	line("Packets received: %d", n.Counters.PacketsReceived)
	line("Packets sent: %d", n.Counters.PacketsSent)
	line("IP addresses:")
	for _, addr := range n.Addresses {
		family := addr.Family + ":"
		line("  %-6s %s/%s (%s)", family, addr.Address, addr.Netmask, addr.Scope)
	}
	return b.String()
}

func (a *app) printSnapshots(snaps []api.InstanceSnapshot) error {
	if len(snaps) == 0 {
		return nil
	}
	rows := [][]string{}
	for _, s := range snaps {
		_, name, ok := strings.Cut(s.Name, "/")
		if !ok {
			name = s.Name
		}
		rows = append(rows, []string{name, minute(s.CreatedAt), minute(s.ExpiresAt), upperYesNo(s.Stateful)})
	}
	a.printf("\nSnapshots:\n")
	return a.table("table", []string{"Name", "Taken at", "Expires at", "Stateful"}, rows, nil)
}

// logLines is how much of a log "info --show-log" prints.
const logLines = 100

func (a *app) printLog(ctx context.Context, c *client.Client, i *api.InstanceFull) error {
	if i.Type == api.TypeVirtualMachine {
		return errors.New("Unsupported instance type: virtual-machine") //nolint:staticcheck // lxc's text
	}
	log, err := c.InstanceLog(ctx, i.Name, "lxc.log")
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	data, err := io.ReadAll(io.LimitReader(log, 16<<20))
	if err != nil {
		return fmt.Errorf("read the log of %s: %w", i.Name, err)
	}
	lines := slices.Collect(strings.Lines(string(data)))
	a.printf("\nLog:\n\n%s\n", strings.Join(lines[max(0, len(lines)-logLines):], ""))
	return nil
}
