package ssh

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/shoal-project/shoal/internal/errs"
)

// credentials is what a tunnel logs in with for one connection.
type credentials struct {
	signers []ssh.Signer
	skipped []string // keys that could not be used, and why
	agent   net.Conn // to be closed when the login is over
}

func (c *credentials) close() {
	if c.agent != nil {
		_ = c.agent.Close()
	}
}

// load reads the key files, then asks the agent. An agent that does not answer is no error while there are other keys.
func (c Config) load(ctx context.Context) (*credentials, error) {
	out := &credentials{}
	for _, file := range c.Keys {
		s, err := c.loadKey(file)
		var missing *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &missing):
			out.skipped = append(out.skipped, file+" is protected by a passphrase (add it to the agent)")
		case err != nil:
			return nil, err
		default:
			out.signers = append(out.signers, s...)
		}
	}
	if c.Agent != "" {
		if err := out.askAgent(ctx, c.Agent); err != nil {
			out.skipped = append(out.skipped, "the agent at "+c.Agent+": "+err.Error())
		}
	}
	if len(out.signers) == 0 {
		out.close()
		if len(out.skipped) == 0 {
			out.skipped = []string{"the agent at " + c.Agent + " has none"}
		}
		return nil, errs.Forbidden("no key to log in with by ssh: %s", strings.Join(out.skipped, "; "))
	}
	return out, nil
}

func (c *credentials) askAgent(ctx context.Context, socket string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	c.agent = conn
	s, err := agent.NewClient(conn).Signers()
	c.signers = append(c.signers, s...)
	return err
}

// loadKey reads one key, and as another the certificate that stands beside it.
func (c Config) loadKey(file string) ([]ssh.Signer, error) {
	data, err := readPrivate(file)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(data)
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) && c.Passphrase != nil {
		var pass []byte
		if pass, err = c.Passphrase(file); err != nil {
			return nil, errs.Invalid("passphrase of %s: %w", file, err)
		}
		key, err = ssh.ParsePrivateKeyWithPassphrase(data, pass)
	}
	switch {
	case errors.As(err, &missing):
		return nil, err
	case err != nil:
		return nil, errs.Invalid("read private key %s: %w", file, err)
	}
	cert, err := os.ReadFile(file + "-cert.pub")
	if errors.Is(err, os.ErrNotExist) {
		return []ssh.Signer{key}, nil
	}
	if err == nil {
		var pub ssh.PublicKey
		if pub, _, _, _, err = ssh.ParseAuthorizedKey(cert); err == nil {
			if crt, ok := pub.(*ssh.Certificate); ok {
				var s ssh.Signer
				if s, err = ssh.NewCertSigner(crt, key); err == nil {
					return []ssh.Signer{s, key}, nil
				}
			} else {
				err = errors.New("it is no certificate")
			}
		}
	}
	return nil, errs.Invalid("read certificate %s-cert.pub: %w", file, err)
}

// readPrivate reads a file that nobody else may read.
func readPrivate(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, errs.Invalid("read private key: %w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, errs.Invalid("read private key: %w", err)
	case !st.Mode().IsRegular() || st.Size() > maxFile:
		return nil, errs.Invalid("private key %s: must be a file of at most %d bytes", file, maxFile)
	case st.Mode()&0o077 != 0:
		return nil, errs.Forbidden("private key %s: others may read it (mode %04o); chmod 600 makes it private", file, st.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, errs.Invalid("read private key %s: %w", file, err)
	}
	return data, nil
}
