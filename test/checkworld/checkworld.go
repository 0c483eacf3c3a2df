// Package checkworld is the oracle after every fault and at the end of every ring 2 test: it compares what a daemon's
// records say with what is on the host. Nothing may be there without a record – no mount, loop device, process, cgroup,
// interface or directory – and no record without its directory.
//
// It looks at the namespaces of the calling thread, so a test that keeps its network in a namespace of its own calls it
// there, or says with Options.PID whose namespaces to look at.
package checkworld

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Options say what is to be there.
type Options struct {
	Dir string // the daemon's state directory: whatever has this path in it belongs to the daemon

	Instances map[string]Instance    // by runtime ID: all records
	Mounts    []string               // mount points below Dir that may be there; those of images and pools, where given, need not be named
	Links     func(name string) bool // nil: do not look at interfaces; else: which may be there besides lo

	PID    int                 // a process, in numbers of the caller, in the namespaces of the daemon; 0: the caller is
	Images []string            // nil: do not look; else the fingerprints of all records
	Pools  map[string][]string // nil: do not look; else by pool the directories of its volumes, such as "containers/c1"
}

func (o Options) proc() string {
	if o.PID == 0 {
		return "/proc/thread-self"
	}
	return fmt.Sprintf("/proc/%d", o.PID)
}

// at is where the caller finds a path of the daemon.
func (o Options) at(path ...string) string {
	p := filepath.Join(path...)
	if o.PID == 0 {
		return p
	}
	return o.proc() + "/root" + p
}

// known tells whether a mount point or a file belongs to an image or a pool that has a record.
func (o Options) known(path string) bool {
	if slices.Contains(o.Mounts, path) {
		return true
	}
	for _, fp := range o.Images {
		if path == filepath.Join(o.Dir, "images", fp, "root") || path == filepath.Join(o.Dir, "images", fp, "root.erofs") ||
			path == filepath.Join(o.Dir, "images", fp, "root.squashfs") {
			return true
		}
	}
	for pool := range o.Pools {
		if path == filepath.Join(o.Dir, "storage-pools", pool) || path == filepath.Join(o.Dir, "disks", pool+".img") {
			return true
		}
	}
	return false
}

// Instance is what is known of one record.
type Instance struct {
	LogDir  string // name of its directory below logs/
	Running bool   // it may have processes, cgroups and interfaces
	Links   []string
}

// Check fails t for every difference. What goes away by itself a moment later (a process that is being reaped) gets
// until the deadline to do so.
func Check(t testing.TB, o Options) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		problems := Problems(o)
		if len(problems) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, p := range problems {
				t.Errorf("checkworld: %s", p)
			}
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Problems lists the differences, sorted.
func Problems(o Options) []string {
	var out []string
	for _, look := range []func(Options) ([]string, error){mounts, loops, processes, cgroups, links, directories, images, pools} {
		found, err := look(o)
		if err != nil {
			found = append(found, err.Error())
		}
		out = append(out, found...)
	}
	slices.Sort(out)
	return out
}

func mounts(o Options) ([]string, error) {
	b, err := os.ReadFile(o.proc() + "/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && below(o.Dir, unescape(f[4])) && !o.known(unescape(f[4])) {
			out = append(out, "mount "+f[4])
		}
	}
	return out, nil
}

// unescape undoes how the kernel writes paths with spaces, and drops its note about those that are gone.
func unescape(path string) string {
	return strings.TrimSuffix(strings.ReplaceAll(path, `\040`, " "), "//deleted")
}

func below(dir, path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func loops(o Options) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it went away
		}
		file := strings.TrimSuffix(strings.TrimSpace(string(b)), " (deleted)")
		if below(o.Dir, file) && (len(o.Mounts) == 0 || o.Pools != nil) && !o.known(file) {
			out = append(out, "loop device "+strings.Split(f, "/")[3]+" on "+file)
		}
	}
	return out, nil
}

// processes finds what was started for instances: its arguments or its working directory have the state directory in them.
func processes(o Options) ([]string, error) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range list {
		if strings.Trim(p.Name(), "0123456789") != "" || p.Name() == fmt.Sprint(os.Getpid()) {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if err != nil {
			continue
		}
		cmd := strings.ReplaceAll(string(args), "\x00", " ")
		i := strings.Index(cmd, o.Dir+"/instances/")
		if i < 0 {
			continue
		}
		id, _, _ := strings.Cut(cmd[i+len(o.Dir+"/instances/"):], "/")
		if inst := o.Instances[strings.TrimSpace(id)]; !inst.Running {
			out = append(out, "process "+p.Name()+": "+cmd)
		}
	}
	return out, nil
}

// cgroups finds the drivers' cgroups /shoal/ID.HASH, where HASH says which daemon they belong to.
func cgroups(o Options) ([]string, error) {
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it went away
		}
		id, hash, ok := strings.Cut(d.Name(), ".")
		if !ok || filepath.Base(filepath.Dir(path)) != "shoal" {
			return nil
		}
		sum := sha256.Sum256([]byte(filepath.Join(o.Dir, "instances", id)))
		if hash == hex.EncodeToString(sum[:4]) && !o.Instances[id].Running {
			out = append(out, "cgroup "+path)
		}
		return fs.SkipDir
	})
	return out, err
}

func links(o Options) ([]string, error) {
	if o.Links == nil {
		return nil, nil
	}
	b, err := os.ReadFile(o.proc() + "/net/dev")
	if err != nil {
		return nil, err
	}
	var known []string
	for _, i := range o.Instances {
		known = append(known, i.Links...)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		name, _, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && name != "lo" && !slices.Contains(known, name) && !o.Links(name) {
			out = append(out, "interface "+name)
		}
	}
	return out, nil
}

func directories(o Options) ([]string, error) {
	var out []string
	logs := map[string]bool{}
	for id, inst := range o.Instances {
		logs[inst.LogDir] = true
		if _, err := os.Stat(o.at(o.Dir, "instances", id)); err != nil {
			out = append(out, "instance "+inst.LogDir+" has no directory: "+err.Error())
		}
	}
	for dir, known := range map[string]func(string) bool{
		"instances": func(n string) bool { _, ok := o.Instances[n]; return ok },
		"logs":      func(n string) bool { return logs[n] },
		"containers": func(n string) bool { // files of the container driver
			id, isSpec := strings.CutSuffix(n, ".json")
			_, ok := o.Instances[id]
			return ok || !isSpec
		},
	} {
		list, err := os.ReadDir(o.at(o.Dir, dir))
		if err != nil && !os.IsNotExist(err) {
			return out, err
		}
		for _, d := range list {
			if !known(d.Name()) {
				out = append(out, "directory "+filepath.Join(dir, d.Name())+" has no record")
			}
		}
	}
	return out, nil
}

// images compares the directories of images with their records, both ways.
func images(o Options) ([]string, error) {
	if o.Images == nil {
		return nil, nil
	}
	var out []string
	list, err := os.ReadDir(o.at(o.Dir, "images"))
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		if !slices.Contains(o.Images, d.Name()) && d.Name() != "lost+found" {
			out = append(out, "images/"+d.Name()+" has no record")
		}
	}
	for _, fp := range o.Images {
		if _, err := os.Stat(o.at(o.Dir, "images", fp)); err != nil {
			out = append(out, "image "+fp+" has no directory: "+err.Error())
		}
	}
	return out, nil
}

// pools compares the directories of pools and of their volumes with the records, both ways. What is being made or removed
// in the background has a hidden directory of the pool, which is empty when that is done.
func pools(o Options) ([]string, error) {
	if o.Pools == nil {
		return nil, nil
	}
	var out []string
	for dir, suffix := range map[string]string{"storage-pools": "", "disks": ".img"} {
		list, err := os.ReadDir(o.at(o.Dir, dir))
		if err != nil {
			return nil, err
		}
		for _, d := range list {
			if _, ok := o.Pools[strings.TrimSuffix(d.Name(), suffix)]; !ok {
				out = append(out, dir+"/"+d.Name()+" has no record")
			}
		}
	}
	for pool, volumes := range o.Pools {
		var found []string
		for _, kind := range []string{".new", ".trash", "containers", "virtual-machines", "custom", "images"} {
			list, err := os.ReadDir(o.at(o.Dir, "storage-pools", pool, kind))
			if err != nil && !os.IsNotExist(err) {
				return out, err
			}
			for _, d := range list {
				found = append(found, kind+"/"+d.Name())
			}
		}
		for _, v := range found {
			if !slices.Contains(volumes, v) {
				out = append(out, "storage-pools/"+pool+"/"+v+" has no record")
			}
		}
		for _, v := range volumes {
			if !slices.Contains(found, v) {
				out = append(out, "volume "+v+" of pool "+pool+" has no directory")
			}
		}
	}
	return out, nil
}
