package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/units"
)

// The limits of a project.
const (
	LimitInstances  = "limits.instances"
	LimitContainers = "limits.containers"
	LimitVMs        = "limits.virtual-machines"
	LimitCPU        = "limits.cpu"
	LimitMemory     = "limits.memory"
	LimitProcesses  = "limits.processes"
	LimitDisk       = "limits.disk"
	LimitNetworks   = "limits.networks"
	limitPool       = "limits.disk.pool." // and the pool's name
)

const (
	container = api.TypeContainer
	vm        = api.TypeVirtualMachine
)

// limits checks each limit that is set.
func limits(p Project, before, after Contents) error {
	for _, key := range slices.Sorted(maps.Keys(p.Config)) {
		value := p.Config[key]
		if value == "" || !strings.HasPrefix(key, "limits.") {
			continue
		}
		limit, err := parseLimit(key, value)
		if err != nil {
			return fmt.Errorf("project %q: %w", p.Name, err)
		}
		if err := measurable(p, key, before, after); err != nil {
			return err
		}
		was, is := usage(key, before), usage(key, after)
		if is <= limit || is <= was {
			continue
		}
		return tooMuch(p, key, value)
	}
	return nil
}

func tooMuch(p Project, key, value string) error {
	switch key {
	case LimitInstances:
		return errs.Forbidden("Reached maximum number of instances in project %q (%s=%s)", p.Name, key, value)
	case LimitContainers:
		return errs.Forbidden("Reached maximum number of instances of type %q in project %q (%s=%s)", container, p.Name, key, value)
	case LimitVMs:
		return errs.Forbidden("Reached maximum number of instances of type %q in project %q (%s=%s)", vm, p.Name, key, value)
	case LimitNetworks:
		return errs.Forbidden("Networks limit has been reached in project %q (%s=%s)", p.Name, key, value)
	}
	return errs.Forbidden("Reached maximum aggregate value %q for %q in project %q", value, key, p.Name)
}

// lowered refuses a new limit that is below what there is.
func lowered(before, after Project, contents Contents) error {
	for _, key := range slices.Sorted(maps.Keys(after.Config)) {
		value := after.Config[key]
		if value == "" || value == before.Config[key] || !strings.HasPrefix(key, "limits.") {
			continue
		}
		limit, err := parseLimit(key, value)
		if err != nil {
			return err
		}
		if err := measurable(after, key, Contents{}, contents); err != nil {
			return errs.Classify(errs.InvalidInput, err)
		}
		if is := usage(key, contents); is > limit {
			return errs.Invalid("%q is too low: the project %q has %s already, %s was given", key, after.Name, show(key, is), value)
		}
	}
	return nil
}

func show(key string, n int64) string {
	if sized(key) {
		return units.FormatBytesIEC(n, 2)
	}
	return strconv.FormatInt(n, 10)
}

func sized(key string) bool { return key == LimitMemory || strings.HasPrefix(key, LimitDisk) }

func parseLimit(key, value string) (int64, error) {
	if sized(key) {
		return units.ParseBytes(value)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, errs.Invalid("%s: %q is not a number", key, value)
	}
	return n, nil
}

// amounts are the keys of instances whose sums are limited.
var amounts = []string{LimitCPU, LimitMemory, LimitProcesses}

// measurable refuses what is new or changed and cannot be counted against a limit.
func measurable(p Project, key string, before, after Contents) error {
	for _, name := range changed(before.Instances, after.Instances) {
		x := after.Instances[name]
		if slices.Contains(amounts, key) {
			if _, err := amount(x, key); err != nil {
				return errs.Forbidden("instance %q in project %q, which limits %s: %w", name, p.Name, key, err)
			}
		}
		if root, ok := rootDisk(x.Devices); ok && counts(key, root["pool"]) {
			if _, err := rootSize(root); err != nil {
				return errs.Forbidden("instance %q in project %q, which limits %s: %w", name, p.Name, key, err)
			}
		}
	}
	for _, name := range changed(before.Volumes, after.Volumes) {
		if v := after.Volumes[name]; counts(key, v.Pool) && v.Size <= 0 {
			return errs.Forbidden("volume %q in project %q, which limits %s: it needs a size", v.Name, p.Name, key)
		}
	}
	return nil
}

// counts reports whether a disk in a pool counts against a limit.
func counts(key, pool string) bool { return key == LimitDisk || key == limitPool+pool }

func amount(x Instance, key string) (int64, error) {
	v := x.Config[key]
	switch {
	case v == "":
		return 0, fmt.Errorf("it needs %s, in itself or in a profile", key)
	case key == LimitMemory && strings.HasSuffix(v, "%"):
		return 0, fmt.Errorf("its %s must be a size, %q is a percentage", key, v)
	case key == LimitMemory:
		return units.ParseBytes(v)
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("its %s must be a number, %q is not", key, v)
	}
	return n, nil
}

func rootDisk(devices map[string]map[string]string) (map[string]string, bool) {
	for _, d := range devices {
		if isRoot(d) {
			return d, true
		}
	}
	return nil, false
}

func isRoot(d map[string]string) bool {
	return d["type"] == "disk" && d["path"] == "/" && d["source"] == "" && d["pool"] != ""
}

func rootSize(root map[string]string) (int64, error) {
	if root["size"] == "" {
		return 0, fmt.Errorf("its root disk needs a size")
	}
	return units.ParseBytes(root["size"])
}

// usage is how much of a limit the contents take. What cannot be counted counts nothing.
func usage(key string, c Contents) (sum int64) {
	switch key {
	case LimitInstances:
		return int64(len(c.Instances))
	case LimitContainers:
		return ofType(c, container)
	case LimitVMs:
		return ofType(c, vm)
	case LimitNetworks:
		return int64(len(c.Networks))
	case LimitCPU, LimitMemory, LimitProcesses:
		for _, x := range c.Instances {
			n, _ := amount(x, key)
			sum = add(sum, n)
		}
		return sum
	}
	for _, x := range c.Instances {
		if root, ok := rootDisk(x.Devices); ok && counts(key, root["pool"]) {
			n, _ := rootSize(root)
			sum = add(sum, n)
		}
	}
	for _, v := range c.Volumes {
		if counts(key, v.Pool) {
			sum = add(sum, v.Size)
		}
	}
	return sum
}

// add does not wrap around: a sum that is too large stays too large.
func add(a, b int64) int64 {
	if b > 0 && a > (1<<63-1)-b {
		return 1<<63 - 1
	}
	return a + b
}

func ofType(c Contents, typ string) (n int64) {
	for _, x := range c.Instances {
		if x.Type == typ {
			n++
		}
	}
	return n
}

// Usage returns each limit of the project with what is used of it, as GET /1.0/projects/NAME/state shows them; -1 is no limit.
// Memory and disk are in bytes.
func Usage(p Project, c Contents) map[string]api.ProjectStateResource {
	out := map[string]api.ProjectStateResource{}
	put := func(key string) {
		r := api.ProjectStateResource{Limit: -1, Usage: usage(key, c)}
		if n, err := parseLimit(key, p.Config[key]); p.Config[key] != "" && err == nil {
			r.Limit = n
		}
		out[strings.TrimPrefix(key, "limits.")] = r
	}
	for _, key := range []string{LimitContainers, LimitCPU, LimitDisk, LimitInstances, LimitMemory, LimitNetworks, LimitProcesses, LimitVMs} {
		put(key)
	}
	for key := range p.Config {
		if strings.HasPrefix(key, limitPool) {
			put(key)
		}
	}
	return out
}
