package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/client"
)

// local strips the "server:" that may stand before a name. All names of a command are on one server. Call it before
// connect, which goes to that server.
func (a *app) local(s string) (string, error) {
	remote, name, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(remote, "/") {
		return s, nil
	}
	if remote != "local" {
		return "", fmt.Errorf("The remote %q doesn't exist", remote) //nolint:staticcheck // lxc's text
	}
	return name, nil
}

// locals is local for many.
func (a *app) locals(args []string) ([]string, error) {
	out := make([]string, len(args))
	for i, s := range args {
		var err error
		if out[i], err = a.local(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// named is local for a name that must be there.
func (a *app) named(s, kind string) (string, error) {
	name, err := a.local(s)
	if err == nil && name == "" {
		err = usagef("Missing %s name", kind)
	}
	return name, err
}

// instancePath splits "c1/etc/hosts" into instance and absolute path.
func (a *app) instancePath(s string) (instance, path string, err error) {
	s, err = a.local(s)
	if err != nil {
		return "", "", err
	}
	instance, path, ok := strings.Cut(s, "/")
	if !ok || instance == "" {
		return "", "", usagef("Invalid path %q: it has to be <instance>/<path>", s)
	}
	return instance, "/" + path, nil
}

func (a *app) cmdRemote() *cobra.Command {
	var format string
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the available remotes", Args: nargs(0, 0),
		Example: "  shoal remote list -f csv",
		RunE: func(*cobra.Command, []string) error {
			url := "unix://" + client.Options{}.SocketPath()
			if url == "unix:///var/lib/shoal/unix.socket" {
				url = "unix://"
			}
			raw := map[string]any{"local": map[string]any{"Addr": url, "Public": false, "Static": true, "Protocol": "shoal"}}
			header := []string{"NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL"}
			return a.table(format, header, [][]string{{"local (current)", url, "shoal", "file access", "NO", "YES", "NO"}}, raw)
		},
	}
	formatFlag(list, &format)
	get := &cobra.Command{
		Use: "get-default", Short: "Show the default remote", Args: nargs(0, 0), Example: "  shoal remote get-default",
		RunE: func(*cobra.Command, []string) error { a.printf("local\n"); return nil },
	}
	return group("remote", "Manage the list of remote servers", get, list)
}

// A guestFile is a file in an instance.
type guestFile struct{ instance, path string }

// instancePaths is instancePath for many.
func (a *app) instancePaths(args []string) ([]guestFile, error) {
	out := make([]guestFile, len(args))
	for i, s := range args {
		var err error
		if out[i].instance, out[i].path, err = a.instancePath(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}
