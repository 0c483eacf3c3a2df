package cli

import (
	"fmt"
	"strings"
)

// local splits the "server:" off that may stand before a name and remembers the server: connect goes there, so call it before. All names
// of a command have to be on one server; a name without a server is on the default one.
func (a *app) local(s string) (string, error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(name, "/") {
		name, rest = "", s
	}
	conf, err := a.remotes()
	if err != nil {
		return "", err
	}
	if name == "" {
		name = conf.Default
	} else if _, err := conf.get(name); err != nil {
		return "", err
	}
	if a.remote != "" && a.remote != name {
		return "", fmt.Errorf("all names of this command have to be on the same server, not on %q and %q", a.remote, name)
	}
	a.remote = name
	return rest, nil
}

// remotes is the user's configuration, read once.
func (a *app) remotes() (*remotes, error) {
	if a.conf == nil {
		conf, err := loadRemotes()
		if err != nil {
			return nil, err
		}
		a.conf = conf
	}
	return a.conf, nil
}

// server is the remote that the command speaks with.
func (a *app) server() (string, remote, error) {
	if a.forceLocal {
		return localRemote, remote{Addr: "unix://"}, nil
	}
	conf, err := a.remotes()
	if err != nil {
		return "", remote{}, err
	}
	name := a.remote
	if name == "" {
		name = conf.Default
	}
	r, err := conf.get(name)
	return name, r, err
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
