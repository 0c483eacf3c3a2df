package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/shoal-project/shoal/internal/errs"
)

// Config says where a cluster is and who we are. Its file is YAML with the names that etcd's own tools use.
type Config struct {
	Endpoints []string `yaml:"endpoints"` // URLs, http or https
	CA        string   `yaml:"trusted-ca-file"`
	Cert      string   `yaml:"cert-file"` // with Key: of the client
	Key       string   `yaml:"key-file"`
	Username  string   `yaml:"username"`
	Password  string   `yaml:"password"`
	// Dial makes the connections, through a tunnel for example: network is tcp with host:port or unix with a path. nil: directly. With
	// it endpoints may be unix:///path too.
	Dial func(ctx context.Context, network, address string) (net.Conn, error) `yaml:"-"`
}

const maxConfig = 64 << 10

const configKeys = "endpoints, trusted-ca-file, cert-file, key-file, username, password"

// ParseConfig reads a configuration file's content and checks it.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	if len(data) > maxConfig {
		return c, errs.TooLarge("the database configuration has %d bytes, at most %d are read", len(data), maxConfig)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && err != io.EOF {
		return c, errs.Invalid("read the database configuration: %w (allowed keys: %s)", err, configKeys)
	}
	return c, c.check()
}

// LoadConfig reads and checks a configuration file.
func LoadConfig(file string) (Config, error) {
	data, err := readFile(file, maxConfig)
	if err != nil {
		return Config{}, errs.Invalid("read the database configuration: %w", err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		return c, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func (c Config) check() error {
	if len(c.Endpoints) == 0 {
		return errs.Invalid("endpoints: the database configuration names no endpoints, at least one URL such as https://10.0.0.1:2379 is needed")
	}
	secure := 0
	for _, e := range c.Endpoints {
		u, err := url.Parse(e)
		if err == nil && u.Scheme == "unix" && c.Dial != nil && u.Host == "" && strings.HasPrefix(u.Path, "/") {
			continue
		}
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return errs.Invalid("endpoints: %q must be a URL such as https://10.0.0.1:2379, with http or https", e)
		}
		if u.Scheme == "https" {
			secure++
		}
	}
	switch {
	case secure != 0 && secure != len(c.Endpoints):
		return errs.Invalid("endpoints: they must all be http or all https")
	case secure == 0 && (c.CA != "" || c.Cert != "" || c.Key != ""):
		return errs.Invalid("trusted-ca-file, cert-file and key-file are for endpoints with https, these are http")
	case (c.Cert == "") != (c.Key == ""):
		return errs.Invalid("cert-file and key-file: both must be set, or none")
	case c.Username == "" && c.Password != "":
		return errs.Invalid("password: there is one but no username")
	}
	return nil
}

// tls returns the settings for connections, nil for http. The files are read at each handshake, the CA's too: whoever renews them need not
// restart anything. They are read once here, so that a wrong name is an error now.
func (c Config) tls() (*tls.Config, error) {
	if !strings.HasPrefix(c.Endpoints[0], "https:") {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		if _, err := c.roots(); err != nil {
			return nil, err
		}
		out.InsecureSkipVerify = true // VerifyConnection does it, with the roots of this moment
		out.VerifyConnection = func(s tls.ConnectionState) error {
			roots, err := c.roots()
			if err != nil {
				return err
			}
			opts := x509.VerifyOptions{Roots: roots, DNSName: s.ServerName, Intermediates: x509.NewCertPool()}
			for _, i := range s.PeerCertificates[1:] {
				opts.Intermediates.AddCert(i)
			}
			if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
			}
			return nil
		}
	}
	if c.Cert != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
			if err != nil {
				return nil, errs.Invalid("cert-file and key-file: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(nil); err != nil {
			return nil, err
		}
		out.GetClientCertificate = load
	}
	return out, nil
}

func (c Config) roots() (*x509.CertPool, error) {
	data, err := readFile(c.CA, maxCert)
	if err != nil {
		return nil, errs.Invalid("trusted-ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errs.Invalid("trusted-ca-file: %s holds no certificate in PEM form", c.CA)
	}
	return pool, nil
}

// Dial returns a backend over a cluster elsewhere, and closes the connection with it. It does not wait for the cluster, calls wait within
// their contexts; unless there is a username: then it logs in, which has to succeed within 5 s.
func Dial(c Config, log *slog.Logger) (*Backend, error) {
	return dial(c, 5*time.Second, log)
}

func dial(c Config, login time.Duration, log *slog.Logger, opts ...grpc.DialOption) (*Backend, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	secure, err := c.tls()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if c.Dial != nil {
		opts = append(opts, c.dialer()...)
	}
	ends := slices.Clone(c.Endpoints)
	rand.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] }) // not all clients on the first
	cl, err := clientv3.New(clientv3.Config{
		Endpoints: ends, TLS: secure, Username: c.Username, Password: c.Password,
		DialTimeout: login, DialOptions: opts, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second, PermitWithoutStream: true,
		Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, errs.Unavailable("connect to the database: %w", err)
	}
	log.Info("using a database elsewhere", "endpoints", ends, "tls", secure != nil)
	b := New(cl)
	b.owned = true
	return b, nil
}

// dialer has gRPC dial as the configuration says. It tries again after 5 s at most, where gRPC by itself would wait up to 2 minutes: a tunnel
// has pauses of its own.
func (c Config) dialer() []grpc.DialOption {
	slow := backoff.DefaultConfig
	slow.MaxDelay = 5 * time.Second
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: slow, MinConnectTimeout: 20 * time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			if path, ok := strings.CutPrefix(address, "unix:"); ok {
				return c.Dial(ctx, "unix", strings.TrimPrefix(path, "//"))
			}
			return c.Dial(ctx, "tcp", address)
		}),
	}
}
