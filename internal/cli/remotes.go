package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"
)

// localRemote is the daemon of this machine; it is always there.
const localRemote = "local"

// A remote is a server as the user's configuration knows it; the file has the form that lxc's has.
type remote struct {
	Addr     string `yaml:"addr"`                // https://host:port or unix:///path
	AuthType string `yaml:"auth_type,omitempty"` // tls
	Project  string `yaml:"project,omitempty"`
	Protocol string `yaml:"protocol,omitempty"`
	Public   bool   `yaml:"public"`
}

// remotes is the user's configuration.
type remotes struct {
	Default string            `yaml:"default-remote"`
	Remotes map[string]remote `yaml:"remotes"`
}

// confDir is the user's directory: $SHOAL_CONF, else shoal in the directory for configurations.
func confDir() (string, error) {
	if d := os.Getenv("SHOAL_CONF"); d != "" {
		return d, nil
	}
	d, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration: %w; set SHOAL_CONF to a directory", err)
	}
	return filepath.Join(d, "shoal"), nil
}

// loadRemotes reads the configuration; without one there is the local server only.
func loadRemotes() (*remotes, error) {
	r := &remotes{}
	dir, err := confDir()
	if err == nil {
		var data []byte
		if data, err = os.ReadFile(filepath.Join(dir, "config.yml")); err == nil {
			err = unmarshalYAML(data, r)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && dir != "" {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, "config.yml"), err)
	}
	if r.Default == "" {
		r.Default = localRemote
	}
	if r.Remotes == nil {
		r.Remotes = map[string]remote{}
	}
	if _, ok := r.Remotes[localRemote]; !ok {
		r.Remotes[localRemote] = remote{Addr: "unix://", Protocol: "shoal"}
	}
	return r, nil
}

// save writes the configuration; a reader sees the old or the new one.
func (r *remotes) save() error {
	data, err := marshalYAML(r)
	if err != nil {
		return err
	}
	return writeConf("config.yml", data, 0o600)
}

func writeConf(name string, data []byte, mode fs.FileMode) error {
	dir, err := confDir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// get returns a remote by name.
func (r *remotes) get(name string) (remote, error) {
	e, ok := r.Remotes[name]
	if !ok {
		return e, fmt.Errorf("The remote %q doesn't exist", name) //nolint:staticcheck // lxc's text
	}
	return e, nil
}

// checkRemoteName refuses what could not be written before a colon or is no file's name.
func checkRemoteName(name string) error {
	if name == "" || len(name) > 63 || name[0] == '.' || name[0] == '-' || strings.ContainsFunc(name, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`:/\=`, c)
	}) {
		return usagef("Invalid remote name %q: it has 1-63 characters without colons, slashes and blanks", name)
	}
	return nil
}

func serverCertFile(name string) string { return filepath.Join("servercerts", name+".crt") }

// serverCertificate is the certificate that the user accepted for a remote, nil when it needed no accepting.
func serverCertificate(name string) (*x509.Certificate, error) {
	dir, err := confDir()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, serverCertFile(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not a certificate in PEM", filepath.Join(dir, serverCertFile(name)))
	}
	return x509.ParseCertificate(block.Bytes)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// clientCertificate is the user's own key pair; with create it is made when there is none. nil: there is none.
func (a *app) clientCertificate(create bool) (*tls.Certificate, error) {
	dir, err := confDir()
	if err != nil {
		return nil, err
	}
	crt, key := filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err == nil {
		return &pair, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the client certificate %s: %w", crt, err)
	}
	if !create {
		return nil, nil
	}
	certPEM, keyPEM, err := newClientPair()
	if err != nil {
		return nil, fmt.Errorf("make a client certificate: %w", err)
	}
	if err := errors.Join(writeConf("client.key", keyPEM, 0o600), writeConf("client.crt", certPEM, 0o644)); err != nil {
		return nil, err
	}
	pair, err = tls.X509KeyPair(certPEM, keyPEM)
	return &pair, err
}

func newClientPair() (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	tpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Shoal"}, CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	return pemOf("CERTIFICATE", der), pemOf("PRIVATE KEY", keyDER), err
}
