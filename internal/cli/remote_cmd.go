package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

func (a *app) cmdRemote() *cobra.Command {
	get := &cobra.Command{
		Use: "get-default", Short: "Show the default remote", Args: nargs(0, 0), Example: "  shoal remote get-default",
		RunE: func(*cobra.Command, []string) error {
			conf, err := a.remotes()
			if err == nil {
				a.printf("%s\n", conf.Default)
			}
			return err
		},
	}
	return group("remote", "Manage the list of remote servers", a.remoteAdd(), get, a.remoteList(), a.remoteRemove(), a.remoteRename(), a.remoteSetURL(), a.remoteSwitch())
}

func (a *app) completeRemotes(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	conf, err := a.remotes()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return sortedKeys(conf.Remotes), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) remoteList() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the available remotes", Args: nargs(0, 0),
		Example: "  shoal remote list -f csv",
		RunE: func(*cobra.Command, []string) error {
			conf, err := a.remotes()
			if err != nil {
				return err
			}
			raw, rows := map[string]any{}, [][]string{}
			for _, name := range sortedKeys(conf.Remotes) {
				r := conf.Remotes[name]
				auth := r.AuthType
				if strings.HasPrefix(r.Addr, "unix:") {
					auth = "file access"
				}
				if name == localRemote {
					if path := (client.Options{}).SocketPath(); path != "/var/lib/shoal/unix.socket" {
						r.Addr = "unix://" + path
					}
				}
				raw[name] = map[string]any{"Addr": r.Addr, "AuthType": r.AuthType, "Project": r.Project, "Public": r.Public, "Static": name == localRemote, "Protocol": r.Protocol}
				shown := name
				if name == conf.Default {
					shown += " (current)"
				}
				rows = append(rows, []string{shown, r.Addr, r.Protocol, auth, upperYesNo(r.Public), upperYesNo(name == localRemote), "NO"})
			}
			return a.table(format, []string{"NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL"}, rows, raw)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

// changeRemotes changes the configuration and writes it.
func (a *app) changeRemotes(change func(*remotes) error) error {
	conf, err := a.remotes()
	if err != nil {
		return err
	}
	if err := change(conf); err != nil {
		return err
	}
	return conf.save()
}

// named returns a remote that may be changed.
func (r *remotes) changeable(name string) (remote, error) {
	e, err := r.get(name)
	if err == nil && name == localRemote {
		err = fmt.Errorf("Remote %s is static and cannot be modified", name) //nolint:staticcheck // lxc's text
	}
	return e, err
}

func (a *app) remoteRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove <remote>", Aliases: []string{"rm"}, Short: "Remove remotes", Args: nargs(1, 1), Example: "  shoal remote remove west",
		Long:              "Remove remotes\n\nThe server goes on trusting this client; \"shoal config trust remove\" there ends that.",
		ValidArgsFunction: a.completeRemotes,
		RunE: func(_ *cobra.Command, args []string) error {
			name := strings.TrimSuffix(args[0], ":")
			return a.changeRemotes(func(r *remotes) error {
				if _, err := r.changeable(name); err != nil {
					return err
				}
				if r.Default == name {
					return errors.New("Can't remove the default remote") //nolint:staticcheck // lxc's text
				}
				delete(r.Remotes, name)
				dir, err := confDir()
				if err != nil {
					return err
				}
				if err := os.Remove(filepath.Join(dir, serverCertFile(name))); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
				return nil
			})
		},
	}
}

func (a *app) remoteRename() *cobra.Command {
	return &cobra.Command{
		Use: "rename <remote> <new-name>", Aliases: []string{"mv"}, Short: "Rename remotes", Args: nargs(2, 2), Example: "  shoal remote rename west east",
		ValidArgsFunction: a.completeRemotes,
		RunE: func(_ *cobra.Command, args []string) error {
			old, name := strings.TrimSuffix(args[0], ":"), strings.TrimSuffix(args[1], ":")
			return a.changeRemotes(func(r *remotes) error {
				e, err := r.changeable(old)
				if err == nil {
					err = checkRemoteName(name)
				}
				if err != nil {
					return err
				}
				if have, ok := r.Remotes[name]; ok {
					return fmt.Errorf("Remote %s already exists as <%s>", name, have.Addr) //nolint:staticcheck // lxc's text
				}
				cert, err := serverCertificate(old)
				if err != nil {
					return err
				}
				if cert != nil { // a copy: what is written last, the configuration, finds one under either name
					if err := writeConf(serverCertFile(name), pemOf("CERTIFICATE", cert.Raw), 0o644); err != nil {
						return err
					}
				}
				delete(r.Remotes, old)
				r.Remotes[name] = e
				if r.Default == old {
					r.Default = name
				}
				return nil
			})
		},
	}
}

func (a *app) remoteSetURL() *cobra.Command {
	return &cobra.Command{
		Use: "set-url <remote> <URL>", Short: "Set the URL for the remote", Args: nargs(2, 2), Example: "  shoal remote set-url west https://10.0.0.2:8443",
		ValidArgsFunction: a.completeRemotes,
		RunE: func(_ *cobra.Command, args []string) error {
			name := strings.TrimSuffix(args[0], ":")
			return a.changeRemotes(func(r *remotes) error {
				e, err := r.changeable(name)
				if err != nil {
					return err
				}
				if e.Addr, err = serverURL(args[1]); err != nil {
					return err
				}
				r.Remotes[name] = e
				return nil
			})
		},
	}
}

func (a *app) remoteSwitch() *cobra.Command {
	return &cobra.Command{
		Use: "switch <remote>", Aliases: []string{"set-default"}, Short: "Switch the default remote", Args: nargs(1, 1), Example: "  shoal remote switch west",
		ValidArgsFunction: a.completeRemotes,
		RunE: func(_ *cobra.Command, args []string) error {
			name := strings.TrimSuffix(args[0], ":")
			return a.changeRemotes(func(r *remotes) error {
				if _, err := r.get(name); err != nil {
					return err
				}
				r.Default = name
				return nil
			})
		},
	}
}

// serverURL makes a URL of what users type: a host, host:port, a URL, or the path of a socket.
func serverURL(s string) (string, error) {
	bad := func() (string, error) {
		return "", usagef("Invalid address %q: it has to be a host, host:port, https://host:port or unix:///path", s)
	}
	switch {
	case strings.HasPrefix(s, "unix:"):
		if path := strings.TrimPrefix(strings.TrimPrefix(s, "unix:"), "//"); !strings.HasPrefix(path, "/") {
			return bad()
		}
		return s, nil
	case strings.HasPrefix(s, "/"):
		return "unix://" + s, nil
	case strings.Contains(s, "://"):
	default:
		if ip := net.ParseIP(strings.Trim(s, "[]")); ip != nil && ip.To4() == nil {
			s = "[" + ip.String() + "]"
		}
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" {
		return bad()
	}
	port := u.Port()
	if port == "" {
		port = client.DefaultPort
	}
	return "https://" + net.JoinHostPort(u.Hostname(), port), nil
}

type remoteAddFlags struct {
	accept, public     bool
	password, protocol string
	authType           string
}

func (a *app) remoteAdd() *cobra.Command {
	var f remoteAddFlags
	cmd := &cobra.Command{
		Use: "add [<remote>] <host|URL|token>", Short: "Add new remote servers", Args: nargs(1, 2),
		Long: `Add new remote servers

With a token, which "shoal config trust add" on that server prints, nothing is asked: the token has the server's addresses, its
fingerprint, and makes the server trust this client. With an address, the server's fingerprint is shown to be accepted, and the password
or a token is asked for where the server does not know this client.`,
		Example: "  shoal remote add west eyJjbGllbnRfbmFtZSI6…\n  shoal remote add west 10.0.0.2\n  shoal remote add west https://10.0.0.2:8443 --accept-certificate --password secret",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 1 {
				if name = strings.TrimSuffix(args[0], ":"); checkRemoteName(name) != nil {
					return checkRemoteName(name)
				}
			}
			if f.protocol != "" && f.protocol != "lxd" && f.protocol != "shoal" && f.protocol != "incus" {
				return fmt.Errorf("remotes of protocol %q are not supported yet: lxd, incus and shoal are", f.protocol)
			}
			if f.authType != "" && f.authType != "tls" {
				return fmt.Errorf("authentication of type %q is not supported: tls is", f.authType)
			}
			return a.addRemote(cmd.Context(), name, args[len(args)-1], &f)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.accept, "accept-certificate", false, "Accept certificate")
	fs.StringVar(&f.password, "password", "", "Remote admin password or token")
	fs.StringVar(&f.password, "token", "", "Remote trust token")
	fs.StringVar(&f.protocol, "protocol", "", "Server protocol (shoal, lxd or incus)")
	fs.StringVar(&f.authType, "auth-type", "", "Server authentication type (tls)")
	fs.BoolVar(&f.public, "public", false, "Public image server")
	return cmd
}

// addRemote finds the server, becomes trusted by it and only then writes the remote down.
func (a *app) addRemote(ctx context.Context, name, where string, f *remoteAddFlags) error {
	conf, err := a.remotes()
	if err != nil {
		return err
	}
	if have, ok := conf.Remotes[name]; ok {
		return fmt.Errorf("Remote %s exists as <%s>", name, have.Addr) //nolint:staticcheck // lxc's text
	}
	r := remote{AuthType: "tls", Protocol: "shoal", Public: f.public, Project: a.project}
	o := client.Options{UserAgent: "shoal " + a.version}
	if a.debug {
		o.Trace = a.trace
	}
	if token, terr := api.ParseCertificateToken(where); terr == nil {
		f.password = where
		err = findServer(ctx, token, &o)
	} else {
		err = a.acceptServer(ctx, where, f.accept, &o)
	}
	if err != nil {
		return err
	}
	if r.Addr = o.URL; o.URL == "" {
		r.Addr, r.AuthType = "unix://"+o.Socket, ""
	} else if o.Certificate, err = a.clientCertificate(true); err != nil {
		return err
	}
	c, err := client.Connect(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	if name, err = a.becomeTrusted(ctx, c, name, f); err != nil {
		return err
	}
	if have, ok := conf.Remotes[name]; ok {
		return fmt.Errorf("Remote %s exists as <%s>; give the new one another name", name, have.Addr) //nolint:staticcheck // lxc's text
	}
	if r.Project == "" && !f.public {
		if r.Project, err = a.chooseProject(ctx, c); err != nil {
			return err
		}
	}
	if o.ServerCertificate != nil {
		if err := writeConf(serverCertFile(name), pemOf("CERTIFICATE", o.ServerCertificate.Raw), 0o644); err != nil {
			return err
		}
	}
	return a.changeRemotes(func(conf *remotes) error { conf.Remotes[name] = r; return nil })
}

// findServer tries a token's addresses until one answers with the certificate that the token names.
func findServer(ctx context.Context, t api.CertificateToken, o *client.Options) error {
	var all []error
	for _, addr := range t.Addresses {
		u, err := serverURL(addr)
		if err != nil {
			all = append(all, err)
			continue
		}
		cert, _, err := client.ServerCertificate(ctx, u)
		switch {
		case err != nil:
			all = append(all, err)
		case client.Fingerprint(cert) != t.Fingerprint:
			all = append(all, fmt.Errorf("%s has another certificate than the token says", u))
		default:
			o.URL, o.ServerCertificate = u, cert
			return nil
		}
	}
	return fmt.Errorf("none of the token's addresses leads to its server: %w", errors.Join(all...))
}

// acceptServer asks the user whether the server is who it says, unless somebody whom this machine trusts says so.
func (a *app) acceptServer(ctx context.Context, where string, accept bool, o *client.Options) error {
	u, err := serverURL(where)
	if err != nil {
		return err
	}
	if path, ok := strings.CutPrefix(u, "unix:"); ok {
		o.Socket = strings.TrimPrefix(path, "//")
		return nil
	}
	cert, verified, err := client.ServerCertificate(ctx, u)
	if err != nil {
		return err
	}
	if o.URL = u; verified {
		return nil
	}
	o.ServerCertificate = cert
	if accept {
		return nil
	}
	fp := client.Fingerprint(cert)
	a.printf("Certificate fingerprint: %s\n", fp)
	answer, err := a.ask("ok (y/n/[fingerprint])? ", false)
	if err != nil {
		return fmt.Errorf("nobody accepted the certificate: %w; --accept-certificate does", err)
	}
	switch answer = strings.ToLower(answer); {
	case answer == "y", answer == "yes", answer == fp:
		return nil
	}
	return errors.New("Server certificate NACKed by user") //nolint:staticcheck // lxc's text
}

// ask prints a question and reads a line; a secret is not shown on a terminal.
func (a *app) ask(question string, secret bool) (string, error) {
	a.printf("%s", question)
	if fd, tty := terminal(a.In); tty && secret {
		b, err := term.ReadPassword(fd)
		a.printf("\n")
		return strings.TrimSpace(string(b)), err
	}
	if a.In == nil {
		return "", io.ErrUnexpectedEOF
	}
	if a.lines == nil {
		a.lines = bufio.NewReader(a.In)
	}
	line, err := a.lines.ReadString('\n')
	if err != nil && line == "" {
		return "", errors.New("there is no answer on standard input")
	}
	return strings.TrimSpace(line), nil
}

// becomeTrusted has the server add the client's certificate, where it does not know it yet. An empty name becomes the server's own.
func (a *app) becomeTrusted(ctx context.Context, c *client.Client, name string, f *remoteAddFlags) (string, error) {
	s, _, err := c.Server(ctx)
	if err != nil {
		return "", err
	}
	if s.Auth != "trusted" && !f.public {
		shown := name
		if shown == "" {
			shown = "the server"
		}
		if f.password == "" {
			if f.password, err = a.ask(fmt.Sprintf("Admin password (or token) for %s: ", shown), true); err != nil {
				return "", fmt.Errorf("%s does not trust this client: %w; --password and --token give one", shown, err)
			}
		}
		post := api.CertificatesPost{Password: f.password, CertificatePut: api.CertificatePut{Type: api.CertificateTypeClient}}
		if _, terr := api.ParseCertificateToken(f.password); terr == nil {
			post.TrustToken = f.password
		}
		if err := c.AddCertificate(ctx, post); err != nil && !client.IsConflict(err) {
			return "", fmt.Errorf("%s does not trust this client: %w", shown, err)
		}
		if s, _, err = c.Server(ctx); err != nil {
			return "", err
		}
		if s.Auth != "trusted" {
			return "", fmt.Errorf("%s does not trust this client: its certificate was added, but it may not use the API", shown)
		}
		a.sayf("Client certificate now trusted by server: %s", shown)
	}
	if name == "" {
		name = s.Environment.ServerName
		if checkRemoteName(name) != nil {
			return "", usagef("The server's name %q cannot name a remote; give one: shoal remote add <remote> …", name)
		}
		a.sayf("Remote %s added", name)
	}
	return name, nil
}

// chooseProject finds a project for a client that does not see the default one.
func (a *app) chooseProject(ctx context.Context, c *client.Client) (string, error) {
	all, err := c.Projects(ctx)
	if err != nil {
		return "", err
	}
	names := map[string]bool{}
	for _, p := range all {
		names[p.Name] = true
	}
	if len(names) == 0 || names["default"] {
		return "", nil
	}
	name := slices.Sorted(maps.Keys(names))[0]
	a.sayf("Using project %s of %s; \"--project\" chooses another", name, strings.Join(sortedKeys(names), ", "))
	return name, nil
}
