package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/test/checkworld"
)

// Check fails the test for every difference between the daemon's records and the host. Differences that go away by
// themselves, as processes do that are being reaped, get a moment to do so. The daemon must be running.
func (w *World) Check(t testing.TB) {
	t.Helper()
	var found []string
	for deadline := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		found = w.Problems()
		if len(found) == 0 {
			return
		}
		if time.Now().After(deadline) {
			break
		}
	}
	t.Errorf("checkworld:\n%s", strings.Join(found, "\n"))
}

// CheckEmpty deletes all instances by force and then checks: with no instance nothing of one may be left. A daemon that was
// stopped is started for it.
func (w *World) CheckEmpty(t testing.TB) {
	t.Helper()
	if _, err := w.Do("GET", "/1.0", nil); err != nil {
		if err := w.Start(); err != nil {
			t.Error(err)
			return
		}
	}
	list, err := read[[]api.Instance](w, "/1.0/instances?recursion=1&all-projects=true")
	if err != nil {
		t.Error(err)
		return
	}
	for _, i := range list {
		if err := w.Shoal("delete", "--force", i.Name, "--project", i.Project); err != nil {
			t.Error(err)
		}
	}
	w.Check(t)
	for pid, comm := range w.Processes() {
		if !slices.Contains([]string{"sh", "cat", "shoald", "nsenter", "unshare"}, comm) {
			t.Errorf("left behind: process %d %s", pid, comm)
		}
	}
}

func read[T any](w *World, path string) (v T, err error) {
	r, err := w.Do("GET", path, nil)
	if err != nil {
		return v, err
	}
	if r.Code != http.StatusOK {
		return v, fmt.Errorf("GET %s: %d %s", path, r.Code, r.Error)
	}
	return v, json.Unmarshal(r.Metadata, &v)
}

// records reads from the API what there should be.
func (w *World) records() (o checkworld.Options, err error) {
	insts, ierr := read[[]api.Instance](w, "/1.0/instances?recursion=1&all-projects=true")
	images, merr := read[[]api.Image](w, "/1.0/images?recursion=1&all-projects=true")
	pools, perr := read[[]api.StoragePool](w, "/1.0/storage-pools?recursion=1")
	nets, nerr := read[[]api.Network](w, "/1.0/networks?recursion=1")
	if err := errors.Join(ierr, merr, perr, nerr); err != nil {
		return o, err
	}
	o = checkworld.Options{Dir: w.State, PID: w.Init, Mounts: w.Mounts, Instances: map[string]checkworld.Instance{}, Images: []string{}, Pools: map[string][]string{}}
	for _, p := range pools {
		o.Pools[p.Name] = nil
	}
	for _, i := range insts {
		name := i.Name
		if i.Project != "default" {
			name = i.Project + "_" + i.Name
		}
		known := checkworld.Instance{LogDir: name, Running: i.StatusCode != api.Stopped}
		for key, value := range i.Config {
			if strings.HasSuffix(key, ".host_name") && known.Running {
				known.Links = append(known.Links, value)
			}
		}
		o.Instances[i.Config["volatile.uuid"]] = known
		if pool := i.ExpandedDevices["root"]["pool"]; pool != "" {
			o.Pools[pool] = append(o.Pools[pool], "containers/"+name)
		}
	}
	for _, i := range images {
		o.Images = append(o.Images, i.Fingerprint)
	}
	// Some kernels give every network namespace interfaces that cannot be removed.
	builtin := regexp.MustCompile(`^(sit|tunl|ip6tnl|erspan|gre|gretap|ip6gre|ip_vti|ip6_vti)[0-9]+$`)
	o.Links = func(name string) bool {
		return builtin.MatchString(name) || slices.ContainsFunc(nets, func(n api.Network) bool { return n.Managed && n.Name == name })
	}
	return o, nil
}

var vethRE = regexp.MustCompile(`veth[0-9a-f]+`)

// Problems lists the differences between records and host.
func (w *World) Problems() []string {
	o, err := w.records()
	if err != nil {
		return []string{err.Error()}
	}
	out := checkworld.Problems(o)
	// Rules without an interface.
	if rules, err := w.Inside("nft", "list", "ruleset").Output(); err == nil {
		for _, name := range vethRE.FindAllString(string(rules), -1) {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/sys/class/net/%s", w.Init, name)); err != nil {
				out = append(out, "rule for interface "+name)
			}
		}
	}
	return slices.Compact(out)
}
