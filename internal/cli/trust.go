package cli

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/client"
)

const trustHeader = `This is a YAML representation of the certificate.
Any line starting with a '# will be ignored.

Note that the fingerprint is shown but cannot be changed.`

func (a *app) cmdTrust() *cobra.Command {
	return group("trust", "Manage trusted clients", a.trustAdd(), a.trustEdit(), a.trustList(), a.trustListTokens(), a.trustRemove(), a.trustRevokeToken(), a.trustShow())
}

func (a *app) completeTrusted(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
	return a.names(func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := c.Certificates(ctx)
		return collect(all, err, func(c api.Certificate) string { return c.Fingerprint[:min(12, len(c.Fingerprint))] })
	})(cmd, args, s)
}

func (a *app) trustAdd() *cobra.Command {
	var put api.CertificatePut
	var projects string
	cmd := &cobra.Command{
		Use: "add [remote:] [<cert>]", Short: "Add new trusted client", Args: nargs(0, 2),
		Long: `Add new trusted client

Without a certificate a token is made and printed: "shoal remote add" (or "lxc remote add") on the other machine takes it, once.
A restricted client sees and changes only what is in its projects. A client of type metrics reads metrics and nothing else.`,
		Example: "  shoal config trust add --name laptop\n  shoal config trust add --name ci --restricted --projects ci,test\n  shoal config trust add west: client.crt --name laptop",
		RunE: func(cmd *cobra.Command, args []string) error {
			server, file := "", ""
			switch {
			case len(args) == 2:
				server, file = args[0], args[1]
			case len(args) == 1 && strings.HasSuffix(args[0], ":") && !exists(args[0]):
				server = args[0]
			case len(args) == 1:
				file = args[0]
			}
			if _, err := a.local(server); err != nil {
				return err
			}
			if projects != "" {
				put.Projects = strings.Split(projects, ",")
			}
			if file != "" {
				return a.trustFile(cmd.Context(), put, file)
			}
			return a.trustToken(cmd.Context(), put)
		},
	}
	f := cmd.Flags()
	f.StringVar(&put.Name, "name", "", "Alternative certificate name")
	f.StringVar(&put.Type, "type", api.CertificateTypeClient, "Type of certificate (client or metrics)")
	f.BoolVar(&put.Restricted, "restricted", false, "Restrict the certificate to one or more projects")
	f.StringVar(&projects, "projects", "", "List of projects to restrict the certificate to, separated by commas")
	return cmd
}

// trustFile adds the certificate in a file.
func (a *app) trustFile(ctx context.Context, put api.CertificatePut, file string) error {
	if file == "-" {
		file = "/dev/stdin"
	}
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if st.Size() > maxDocument {
		return fmt.Errorf("%s is no certificate: it has %d bytes", file, st.Size())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("%s is not a certificate in PEM", file)
	}
	put.Certificate = base64.StdEncoding.EncodeToString(block.Bytes)
	if put.Name == "" {
		put.Name = filepath.Base(file)
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	return c.AddCertificate(ctx, api.CertificatesPost{CertificatePut: put})
}

// trustToken makes a token and prints it.
func (a *app) trustToken(ctx context.Context, put api.CertificatePut) error {
	var err error
	if put.Name == "" {
		if put.Name, err = a.ask("Please provide client name: ", false); err != nil {
			return fmt.Errorf("a token needs the name of its client: %w; --name gives one", err)
		}
	}
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	op, err := c.CreateCertificateToken(ctx, put)
	if err != nil {
		return err
	}
	t, ok := api.CertificateTokenOf(op.Last())
	if !ok {
		return fmt.Errorf("the server made no token")
	}
	a.sayf("Client %s certificate add token:", put.Name)
	a.printf("%s\n", t)
	return nil
}

func (a *app) trustList() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list [remote:]", Aliases: []string{"ls"}, Short: "List trusted clients", Args: nargs(0, 1), Example: "  shoal config trust list",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connectTo(cmd.Context(), args)
			if err != nil {
				return err
			}
			all, err := c.Certificates(cmd.Context())
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, c := range all {
				rows = append(rows, trustRow(c))
			}
			sortRows(rows)
			return a.table(format, []string{"TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE", "PROJECTS"}, rows, all)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func trustRow(c api.Certificate) []string {
	row := []string{c.Type, c.Name, "", c.Fingerprint[:min(12, len(c.Fingerprint))], "", "", "all"}
	if block, _ := pem.Decode([]byte(c.Certificate)); block != nil {
		if x, err := x509.ParseCertificate(block.Bytes); err == nil {
			row[2], row[4], row[5] = x.Subject.CommonName, x.NotBefore.UTC().Format(longLayout), x.NotAfter.UTC().Format(longLayout)
		}
	}
	switch {
	case c.Type == api.CertificateTypeMetrics:
		row[6] = ""
	case c.Restricted:
		row[6] = strings.Join(c.Projects, ",")
	}
	return row
}

func (a *app) trustShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [remote:]<fingerprint>", Short: "Show trust configurations", Args: nargs(1, 1), Example: "  shoal config trust show 5f1c0b7e3d2a",
		ValidArgsFunction: completer(a.completeTrusted).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			fp, err := a.named(args[0], "certificate")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			cert, _, err := c.Certificate(cmd.Context(), fp)
			if err != nil {
				return err
			}
			return a.yaml(cert)
		},
	}
}

func (a *app) trustEdit() *cobra.Command {
	return &cobra.Command{
		Use: "edit [remote:]<fingerprint>", Short: "Edit trust configurations as YAML", Args: nargs(1, 1), ValidArgsFunction: completer(a.completeTrusted).first(),
		Long:    "Edit trust configurations as YAML\n\nWith a document on standard input no editor is started.",
		Example: "  shoal config trust edit 5f1c0b7e3d2a\n  shoal config trust edit 5f1c0b7e3d2a < certificate.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			fp, err := a.named(args[0], "certificate")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			cert, etag, err := c.Certificate(cmd.Context(), fp)
			if err != nil {
				return err
			}
			id := cert.Fingerprint
			return a.editDocument(cmd.Context(), trustHeader, &document{edit: cert, save: func(ctx context.Context) error {
				return c.UpdateCertificate(ctx, id, cert.CertificatePut, etag)
			}})
		},
	}
}

func (a *app) trustRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove [remote:]<fingerprint>", Aliases: []string{"rm"}, Short: "Remove trusted client", Args: nargs(1, 2), Example: "  shoal config trust remove 5f1c0b7e3d2a",
		ValidArgsFunction: completer(a.completeTrusted).first(),
		RunE: func(cmd *cobra.Command, args []string) error {
			fp, err := a.afterServer(args, "certificate")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			return c.DeleteCertificate(cmd.Context(), fp)
		},
	}
}

// afterServer reads "remote:name" or "remote: name".
func (a *app) afterServer(args []string, kind string) (string, error) {
	name, err := a.local(args[0])
	if err != nil {
		return "", err
	}
	if len(args) > 1 {
		if name != "" {
			return "", usagef("Invalid number of arguments: %q and %q", args[0], args[1])
		}
		name = args[1]
	}
	if name == "" {
		return "", usagef("Missing %s", kind)
	}
	return name, nil
}

// tokens returns the tokens that wait for their use, with the operations that stand for them.
func tokens(ctx context.Context, c *client.Client) ([]api.CertificateToken, []string, error) {
	ops, err := c.Operations(ctx, true)
	if err != nil {
		return nil, nil, err
	}
	list, ids := []api.CertificateToken{}, []string{}
	for _, o := range ops {
		if t, ok := api.CertificateTokenOf(o); ok && !o.StatusCode.IsFinal() {
			list, ids = append(list, t), append(ids, o.ID)
		}
	}
	return list, ids, nil
}

func (a *app) trustListTokens() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list-tokens [remote:]", Short: "List all active certificate add tokens", Args: nargs(0, 1), Example: "  shoal config trust list-tokens",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connectTo(cmd.Context(), args)
			if err != nil {
				return err
			}
			list, _, err := tokens(cmd.Context(), c)
			if err != nil {
				return err
			}
			rows := [][]string{}
			for _, t := range list {
				expires := ""
				if timeIsSet(t.ExpiresAt) {
					expires = t.ExpiresAt.UTC().Format(minuteLayout)
				}
				rows = append(rows, []string{t.ClientName, t.String(), expires})
			}
			sortRows(rows)
			return a.table(format, []string{"NAME", "TOKEN", "EXPIRES AT"}, rows, list)
		},
	}
	formatFlag(cmd, &format)
	return cmd
}

func (a *app) trustRevokeToken() *cobra.Command {
	return &cobra.Command{
		Use: "revoke-token [remote:]<name>", Short: "Revoke certificate add token", Args: nargs(1, 1), Example: "  shoal config trust revoke-token laptop",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.named(args[0], "token")
			if err != nil {
				return err
			}
			c, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			list, ids, err := tokens(cmd.Context(), c)
			if err != nil {
				return err
			}
			for i, t := range list {
				if t.ClientName == name {
					if err := c.DeleteOperation(cmd.Context(), ids[i]); err != nil {
						return err
					}
					a.sayf("Certificate add token for %s deleted", name)
					return nil
				}
			}
			return fmt.Errorf("No certificate add token for client %s", name) //nolint:staticcheck // lxc's text
		},
	}
}
