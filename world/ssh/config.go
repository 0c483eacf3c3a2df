package ssh

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// Limits on a configuration.
const (
	MaxHops   = 8
	MaxRoutes = 16
	maxFile   = 1 << 20 // bytes of a key or known_hosts file
	maxName   = 255     // bytes of a user or host
)

// Hop is an ssh server.
type Hop struct {
	User string
	Addr string // host:port
	// HostKey pins the server's key: "SHA256:…" as ssh-keygen -l prints it, or "ssh-ed25519 AAAA…" as in a .pub file; "": known_hosts decides.
	HostKey string
}

func (h Hop) String() string { return h.User + "@" + h.Addr }

// Route is a chain of hops, the last of which reaches the targets.
type Route []Hop

func (r Route) String() string {
	s := make([]string, len(r))
	for i, h := range r {
		s[i] = h.String()
	}
	return strings.Join(s, ",")
}

// ParseRoute reads hops that are separated by commas, the nearest first: [ssh://][user@]host[:port][?hostkey=KEY]. User and port
// default to user and 22; IPv6 addresses stand in brackets; a space in KEY is written as %20.
func ParseRoute(s, user string) (Route, error) {
	if len(s) > 16<<10 {
		return nil, errs.TooLarge("the ssh route has %d bytes, at most %d are read", len(s), 16<<10)
	}
	var r Route
	for _, part := range strings.Split(s, ",") {
		h, err := parseHop(part, user)
		if err != nil {
			return nil, err
		}
		r = append(r, h)
	}
	return r, r.check()
}

func parseHop(s, user string) (Hop, error) {
	bad := func(why string) (Hop, error) {
		return Hop{}, errs.Invalid("ssh server %q: %s; must be [user@]host[:port][?hostkey=KEY]", s, why)
	}
	if rest, ok := strings.CutPrefix(s, "ssh://"); ok || !strings.Contains(s, "://") {
		if !ok {
			rest = s
		}
		u, err := url.Parse("ssh://" + rest)
		if err != nil {
			return bad("it is no address")
		}
		if u.Path != "" && u.Path != "/" || u.Fragment != "" {
			return bad("it has a path")
		}
		h := Hop{User: user}
		if u.User != nil {
			if _, has := u.User.Password(); has {
				return bad("passwords are not used")
			}
			h.User = u.User.Username()
		}
		port := u.Port()
		if port == "" {
			port = "22"
		}
		h.Addr = net.JoinHostPort(u.Hostname(), port)
		q, err := url.ParseQuery(strings.ReplaceAll(u.RawQuery, "+", "%2B")) // a plus is one: it is a letter of base64
		if err != nil {
			return bad("what follows the question mark cannot be read")
		}
		for k := range q {
			if k != "hostkey" || len(q[k]) != 1 {
				return bad("only one hostkey may follow the question mark")
			}
			h.HostKey = q.Get(k)
		}
		return h, h.check()
	}
	return bad("its scheme is not ssh")
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

func (h Hop) check() error {
	host, port, err := net.SplitHostPort(h.Addr)
	if ip, perr := netip.ParseAddr(host); err != nil || len(host) > maxName || !nameRE.MatchString(host) && (perr != nil || ip.Zone() != "") {
		return errs.Invalid("ssh server %q: must be host:port, with a name or an address without a zone", h.Addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errs.Invalid("ssh server %q: the port must be 1 to 65535", h.Addr)
	}
	if len(h.User) > maxName || !nameRE.MatchString(h.User) {
		return errs.Invalid("ssh server %q: user %q: must be letters, digits, dots, underscores and hyphens", h.Addr, h.User)
	}
	if h.HostKey != "" {
		if _, err := parsePin(h.HostKey); err != nil {
			return err
		}
	}
	return nil
}

func (r Route) check() error {
	if len(r) == 0 || len(r) > MaxHops {
		return errs.Invalid("an ssh route has 1 to %d servers, not %d", MaxHops, len(r))
	}
	for _, h := range r {
		if err := h.check(); err != nil {
			return err
		}
	}
	return nil
}

// Config is how a tunnel reaches its targets and who it is.
type Config struct {
	Routes []Route // tried in this order
	// KnownHosts are files as ssh has them; those that do not exist are passed over, but one must unless all hops are pinned.
	KnownHosts []string
	// Keys are files with private keys; each must be there and readable by its owner only. A certificate is taken from FILE-cert.pub.
	Keys []string
	// Agent is the socket of an ssh agent; "": none.
	Agent string
	// Passphrase is asked for the passphrase of a key file; nil: protected keys are passed over.
	Passphrase func(file string) ([]byte, error)
	// Timeout bounds connecting to one server, login included; 0: 15 s.
	Timeout time.Duration
	// KeepAlive is how often the server must answer; 0: 15 s. After three times that without an answer it is given up.
	KeepAlive time.Duration
	// MaxPause bounds the growing pauses between attempts; 0: 10 s.
	MaxPause time.Duration
	Log      *slog.Logger // nil: silent
}

// UserConfig is what ssh uses for the person whose home directory this is: known hosts, the usual keys that are there, and the agent at the
// socket ("": none).
func UserConfig(home, agent string) Config {
	c := Config{KnownHosts: []string{filepath.Join(home, ".ssh/known_hosts"), "/etc/ssh/ssh_known_hosts"}, Agent: agent}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		file := filepath.Join(home, ".ssh", name)
		if _, err := os.Stat(file); err == nil {
			c.Keys = append(c.Keys, file)
		}
	}
	return c
}

const misses = 3

func (c Config) withDefaults() (Config, error) {
	if len(c.Routes) == 0 || len(c.Routes) > MaxRoutes {
		return c, errs.Invalid("a tunnel has 1 to %d ssh routes, not %d", MaxRoutes, len(c.Routes))
	}
	pinned := true
	for _, r := range c.Routes {
		if err := r.check(); err != nil {
			return c, err
		}
		for _, h := range r {
			pinned = pinned && h.HostKey != ""
		}
	}
	if !pinned && len(c.KnownHosts) == 0 {
		return c, errs.Invalid("no known_hosts file and a server without a pinned key: who the server is could not be checked")
	}
	if len(c.Keys) == 0 && c.Agent == "" {
		return c, errs.Invalid("neither a key file nor an agent to log in with")
	}
	for _, d := range []*time.Duration{&c.Timeout, &c.KeepAlive, &c.MaxPause} {
		if *d < 0 {
			return c, errs.Invalid("a tunnel's times must not be negative")
		}
	}
	if c.Timeout == 0 {
		c.Timeout = 15 * time.Second
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = 15 * time.Second
	}
	if c.MaxPause == 0 {
		c.MaxPause = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}
