package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/units"
)

type instanceColumn = column[api.InstanceFull]

// ifActive shows a number of the runtime state, nothing when there is none.
func ifActive(f func(*api.InstanceState) string) func(api.InstanceFull) string {
	return func(i api.InstanceFull) string {
		if !active(i) {
			return ""
		}
		return f(i.State)
	}
}

// instanceColumns are the columns that have a letter.
func instanceColumns() []instanceColumn {
	return []instanceColumn{
		{'4', "IPV4", func(i api.InstanceFull) string { return strings.Join(addresses(i, "inet"), "\n") }},
		{'6', "IPV6", func(i api.InstanceFull) string { return strings.Join(addresses(i, "inet6"), "\n") }},
		{'a', "ARCHITECTURE", func(i api.InstanceFull) string { return i.Architecture }},
		{'b', "STORAGE POOL", func(i api.InstanceFull) string { _, d := rootDisk(i.Instance); return d["pool"] }},
		{'c', "CREATED AT", func(i api.InstanceFull) string { return minute(i.CreatedAt) }},
		{'d', "DESCRIPTION", func(i api.InstanceFull) string { return i.Description }},
		{'D', "DISK USAGE", diskUsage},
		{'e', "PROJECT", func(i api.InstanceFull) string { return i.Project }},
		{'f', "BASE IMAGE", func(i api.InstanceFull) string {
			fp := i.Config["volatile.base_image"]
			return fp[:min(12, len(fp))]
		}},
		{'F', "BASE IMAGE", func(i api.InstanceFull) string { return i.Config["volatile.base_image"] }},
		{'l', "LAST USED AT", func(i api.InstanceFull) string { return minute(i.LastUsedAt) }},
		{'L', "LOCATION", func(i api.InstanceFull) string { return i.Location }},
		{'m', "MEMORY USAGE", ifActive(func(s *api.InstanceState) string {
			if s.Memory.Usage == 0 {
				return ""
			}
			return sizeIEC(s.Memory.Usage)
		})},
		{'M', "MEMORY USAGE%", memoryPercent},
		{'n', "NAME", func(i api.InstanceFull) string { return i.Name }},
		{'N', "PROCESSES", ifActive(func(s *api.InstanceState) string { return strconv.FormatInt(s.Processes, 10) })},
		{'p', "PID", ifActive(func(s *api.InstanceState) string { return strconv.FormatInt(s.Pid, 10) })},
		{'P', "PROFILES", func(i api.InstanceFull) string { return strings.Join(i.Profiles, "\n") }},
		{'s', "STATE", func(i api.InstanceFull) string { return strings.ToUpper(i.Status) }},
		{'S', "SNAPSHOTS", func(i api.InstanceFull) string { return strconv.Itoa(len(i.Snapshots)) }},
		{'t', "TYPE", instanceType},
		{'u', "CPU USAGE", ifActive(func(s *api.InstanceState) string {
			if s.CPU.Usage == 0 {
				return ""
			}
			return fmt.Sprintf("%ds", s.CPU.Usage/1_000_000_000)
		})},
	}
}

func instanceType(i api.InstanceFull) string {
	t := i.Type
	if t == "" {
		t = api.TypeContainer
	}
	t = strings.ToUpper(t)
	if i.Ephemeral {
		t += " (EPHEMERAL)"
	}
	return t
}

func diskUsage(i api.InstanceFull) string {
	name, _ := rootDisk(i.Instance)
	if i.State == nil || i.State.Disk[name].Usage <= 0 {
		return ""
	}
	return sizeIEC(i.State.Disk[name].Usage)
}

func memoryPercent(i api.InstanceFull) string {
	limit, err := units.ParseBytes(i.ExpandedConfig["limits.memory"])
	if !active(i) || err != nil || limit == 0 || i.State.Memory.Usage == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f%%", float64(i.State.Memory.Usage)/float64(limit)*100)
}

// parseColumns reads what follows -c: letters, and keys with an optional name and width.
func parseColumns(s string) ([]instanceColumn, error) {
	all := instanceColumns()
	var cols []instanceColumn
	for _, field := range strings.Split(s, ",") {
		switch {
		case field == "":
			return nil, usagef("Empty column entry (redundant, leading or trailing command) in '%s'", s)
		case strings.ContainsAny(field, ".:"):
			c, err := keyColumn(field)
			if err != nil {
				return nil, err
			}
			cols = append(cols, c)
		default:
			picked, err := pickColumns(field, all)
			if err != nil {
				return nil, err
			}
			cols = append(cols, picked...)
		}
	}
	return cols, nil
}

// keyColumn reads "[config:|devices:]key[:name][:maxWidth]".
func keyColumn(field string) (instanceColumn, error) {
	parts := strings.Split(field, ":")
	source := "config"
	if len(parts) > 1 && (parts[0] == "config" || parts[0] == "devices") {
		source, parts = parts[0], parts[1:]
	}
	key, name, width := parts[0], strings.ToUpper(parts[0]), -1
	if key == "" {
		return instanceColumn{}, usagef("Invalid config key '' in '%s'", field)
	}
	if len(parts) > 1 && parts[1] != "" {
		name = parts[1]
	}
	if len(parts) > 2 {
		n, err := strconv.Atoi(parts[2])
		if err != nil || n < -1 {
			return instanceColumn{}, usagef("Invalid max width (must be -1 for unlimited, 0 for the header's, or more) %q in '%s'", parts[2], field)
		}
		if width = n; n == 0 {
			width = runewidth.StringWidth(name)
		}
	}
	if len(parts) > 3 {
		return instanceColumn{}, usagef("Invalid number of fields in '%s'", field)
	}
	text := func(i api.InstanceFull) string { return i.ExpandedConfig[key] }
	if source == "devices" {
		dev, option, ok := strings.Cut(key, ".")
		if !ok {
			return instanceColumn{}, usagef("Invalid device key '%s' in '%s': it has to be device.option", key, field)
		}
		text = func(i api.InstanceFull) string { return i.ExpandedDevices[dev][option] }
	}
	return instanceColumn{header: name, text: func(i api.InstanceFull) string {
		v := text(i)
		if width >= 0 {
			v = runewidth.Truncate(v, width, "")
		}
		return v
	}}, nil
}
