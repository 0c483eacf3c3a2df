package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
)

// layout is the state directory: LXD's names and modes, so that its tools find their way.
var layout = []struct {
	name string
	mode os.FileMode
}{
	{"", 0o711}, {"backups", 0o700}, {"cache", 0o700}, {"database", 0o700}, {"devices", 0o711}, {"disks", 0o700},
	{"images", 0o700}, {"instances", 0o711}, {"journal", 0o700}, {"logs", 0o700}, {"networks", 0o711}, {"storage-pools", 0o711},
}

// prepareDir makes the state directory and what is below it, and gives each its mode again.
func prepareDir(dir string) error {
	for _, l := range layout {
		path := filepath.Join(dir, l.name)
		if err := os.MkdirAll(path, l.mode); err != nil {
			return fmt.Errorf("prepare state directory: %w", err)
		}
		if err := os.Chmod(path, l.mode); err != nil {
			return fmt.Errorf("prepare state directory: %w", err)
		}
	}
	return nil
}

// nodeID returns this node's name, made up at the first start: eight hexadecimal digits behind a letter. It is part of the
// names of the links that this daemon makes, so it stays for as long as the directory does.
func nodeID(dir string) (string, error) {
	const file = "node-id"
	root, err := fsroot.Open(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	b, err := root.ReadFile(file)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if len(id) != 9 {
			return "", errs.Invalid("%s: %q is not the name of a node; restore the file, or move it aside to get a new name", filepath.Join(dir, file), id)
		}
		return id, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the node's name: %w", err)
	}
	var r [4]byte
	_, _ = rand.Read(r[:]) // crypto/rand.Read never returns an error
	id := "n" + hex.EncodeToString(r[:])
	if err := root.WriteAtomic(file, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the node's name: %w", err)
	}
	return id, nil
}

// lockDir makes this process the only daemon of dir until the file is closed, or until the process dies, whatever
// the way. errs.Busy names the process that has it.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "shoald.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		pid := "unknown"
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			pid = strings.TrimSpace(string(b))
		}
		return nil, errs.Busy("another shoald (PID %s) already runs on %s; stop it first, or choose another directory with --dir", pid, dir)
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f, nil
}

// listen opens the socket of dir. Whoever calls holds the directory's lock, so a socket that is there is stale.
// Members of group may connect; empty means the group "shoal" where it exists, else root only.
func listen(dir, group string) (net.Listener, error) {
	path := filepath.Join(dir, "unix.socket")
	if len(path) > 107 {
		return nil, errs.Invalid("state directory %q is too long: a socket's path has at most 107 bytes", dir)
	}
	gid, err := lookupGroup(group)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	err = os.Chown(path, -1, gid)
	if err == nil {
		err = os.Chmod(path, 0o660)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set owner of socket: %w", err), l.Close())
	}
	return l, nil
}

func lookupGroup(name string) (int, error) {
	given := name != ""
	if !given {
		name = "shoal"
	}
	g, err := user.LookupGroup(name)
	var unknown user.UnknownGroupError
	switch {
	case err == nil:
		return strconv.Atoi(g.Gid)
	case !given && errors.As(err, &unknown):
		return -1, nil // the group of the process
	case errors.As(err, &unknown):
		return 0, errs.Invalid("there is no group %q; make it with \"groupadd --system %s\" or choose another with --group", name, name)
	}
	return 0, fmt.Errorf("look up group %q: %w", name, err)
}
