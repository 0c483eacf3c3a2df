package policy

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
)

// DeviceRule returns the restriction of a type of device, "" for none.
func DeviceRule(typ string) string {
	switch typ {
	case "disk", "nic", "gpu", "infiniband", "pci", "proxy", "tpm", "unix-block", "unix-char", "unix-hotplug", "usb":
		return "restricted.devices." + typ
	}
	return ""
}

// checkDevices looks at the effective devices.
func checkDevices(p Project, what, owner string, devices map[string]map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		d := devices[name]
		rule := DeviceRule(d["type"])
		reason := ""
		switch {
		case rule == "":
			if d["type"] != "none" {
				reason = "its type is unknown"
			}
		case d["type"] == "disk":
			reason = diskForbidden(p, d)
		case d["type"] == "nic":
			reason = nicForbidden(p, d)
		case p.word(rule) != allow:
			reason = "devices of type " + d["type"] + " are not allowed"
		}
		if reason == "" {
			continue
		}
		if rule != "" {
			reason += " (" + rule + "=" + p.word(rule) + ")"
		}
		return errs.Forbidden("%s %q of project %q: device %q is forbidden: %s", what, owner, p.Name, name, reason)
	}
	return nil
}

// diskForbidden says why a disk is forbidden, "" when it is not. The root disk never is.
func diskForbidden(p Project, d map[string]string) string {
	if isRoot(d) {
		return ""
	}
	switch p.word("restricted.devices.disk") {
	case block:
		return "only the root disk is allowed"
	case managed:
		if d["pool"] == "" {
			return "only disks of a storage pool are allowed"
		}
		return ""
	}
	if d["pool"] != "" || p.Config["restricted.devices.disk.paths"] == "" {
		return ""
	}
	allowed, err := parsePaths(p.Config["restricted.devices.disk.paths"])
	if err != nil {
		return "restricted.devices.disk.paths cannot be read"
	}
	source := d["source"]
	if !path.IsAbs(source) || path.Clean(source) != strings.TrimSuffix(source, "/") && source != "/" {
		return "its source must be an absolute path without . and .."
	}
	source = path.Clean(source)
	for _, prefix := range allowed {
		if source == prefix || strings.HasPrefix(source, strings.TrimSuffix(prefix, "/")+"/") {
			return ""
		}
	}
	return "its source must be below one of " + p.Config["restricted.devices.disk.paths"]
}

func nicForbidden(p Project, d map[string]string) string {
	switch p.word("restricted.devices.nic") {
	case block:
		return "network devices are not allowed"
	case managed:
		if d["network"] == "" {
			return `only network devices with "network" are allowed`
		}
	}
	for _, n := range []string{d["network"], d["parent"]} {
		if n != "" && !NetworkAllowed(p, n) {
			return "network " + n + " is not one of restricted.networks.access"
		}
	}
	return ""
}

// NetworkAllowed reports whether a project may see and use a network of the default project.
func NetworkAllowed(p Project, network string) bool {
	list := p.Config["restricted.networks.access"]
	if !p.Restricted() || list == "" {
		return true
	}
	for n := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(n) == network {
			return true
		}
	}
	return false
}
