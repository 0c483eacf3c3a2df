package config

import (
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/schema"
	"github.com/shoal-project/shoal/internal/units"
)

// Host is what limits depend on.
type Host struct {
	MemoryBytes int64
	CPUs        []int // online, ascending
}

// Limits turns checked configuration into what a driver gets. A number of CPUs becomes a set of that many, chosen by id,
// so that instances spread over the host and an instance keeps its CPUs.
func Limits(cfg api.Config, id string, host Host) (driver.Limits, error) {
	l := driver.Limits{MemoryBytes: table.Size(cfg, "limits.memory", host.MemoryBytes), Processes: table.Int(cfg, "limits.processes")}
	a, err := parseAllowance(table.Get(cfg, "limits.cpu.allowance"))
	if err != nil {
		return l, err
	}
	l.CPUQuota, l.CPUPeriod = a.quota, a.period
	if cfg["limits.cpu.allowance"] != "" || cfg["limits.cpu.priority"] != "" {
		l.CPUShares = shares(a.percent, table.Int(cfg, "limits.cpu.priority"))
	}
	if v := cfg["limits.cpu"]; v != "" {
		if l.CPUs, err = pickCPUs(v, id, host.CPUs); err != nil {
			return l, err
		}
	}
	return l, nil
}

// shares are LXD's: the kernel's default of 1024 for 100 %, one less for each step of priority below 10.
func shares(percent, priority int64) int64 { return 10*percent + 24 - (10 - priority) }

// cpuAllowance is a percentage, which is a share under load, or a hard limit; with a hard limit the share is the full one.
type cpuAllowance struct {
	percent       int64
	quota, period time.Duration
}

var allowanceRE = regexp.MustCompile(`^([0-9]{1,6})ms/([0-9]{1,6})ms$`)

func parseAllowance(v string) (cpuAllowance, error) {
	if strings.HasSuffix(v, "%") {
		p, err := units.ParsePercent(v)
		return cpuAllowance{percent: p}, err
	}
	m := allowanceRE.FindStringSubmatch(v)
	if m == nil {
		return cpuAllowance{}, errors.New("must be a share such as 50%, or a hard limit such as 25ms/100ms")
	}
	quota, _ := strconv.Atoi(m[1])
	period, _ := strconv.Atoi(m[2])
	if quota < 1 || period < 1 || period > 1000 {
		return cpuAllowance{}, errors.New("the period must be 1–1000 ms and the part at least 1 ms")
	}
	return cpuAllowance{percent: 100, quota: time.Duration(quota) * time.Millisecond, period: time.Duration(period) * time.Millisecond}, nil
}

func allowance() schema.Type {
	return schema.Custom("CPU allowance", "1% to 100%, or a hard limit such as 25ms/100ms", func(v string) error { _, err := parseAllowance(v); return err })
}

// minMemory is the least that the kernel lets any process live in.
const minMemory = 1 << 20

func memory() schema.Type {
	return schema.Custom("size or percentage", "a size such as 512MiB, or 1% to 100%", func(v string) error {
		n, err := units.ParseBytesOrPercent(v, 1<<40)
		if err == nil && n < minMemory {
			err = errors.New("must be at least 1MiB")
		}
		return err
	})
}

func cpus() schema.Type {
	return schema.Custom("CPUs", "a number of CPUs or a set such as 0-3,7", func(v string) error {
		if n, err := strconv.ParseUint(v, 10, 16); err == nil {
			if n == 0 {
				return errors.New("must be at least 1")
			}
			return nil
		}
		_, err := ParseCPUSet(v)
		return err
	})
}

func pickCPUs(v, id string, online []int) (string, error) {
	n, err := strconv.Atoi(v)
	if err != nil {
		want, err := ParseCPUSet(v)
		if err != nil {
			return "", err
		}
		for _, c := range want {
			if !slices.Contains(online, c) {
				return "", fmt.Errorf("limits.cpu: this host has no CPU %d (it has %s)", c, formatCPUs(online))
			}
		}
		return formatCPUs(want), nil
	}
	if n >= len(online) {
		return "", nil
	}
	h := fnv.New32a()
	h.Write([]byte(id))
	first := int(h.Sum32() % uint32(len(online)))
	var set []int
	for i := range n {
		set = append(set, online[(first+i)%len(online)])
	}
	slices.Sort(set)
	return formatCPUs(set), nil
}

// ParseCPUSet parses a set such as "0-3,7" into ascending numbers below 4096.
func ParseCPUSet(v string) ([]int, error) {
	bad := errors.New("must be a number of CPUs or a set such as 0-3,7")
	var out []int
	for _, part := range strings.Split(v, ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		lo, err1 := strconv.ParseUint(a, 10, 12)
		hi, err2 := strconv.ParseUint(b, 10, 12)
		if err1 != nil || err2 != nil || hi < lo || len(out) > 1<<13 {
			return nil, bad
		}
		for c := lo; c <= hi; c++ {
			out = append(out, int(c))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func formatCPUs(set []int) string {
	parts := make([]string, len(set))
	for i, c := range set {
		parts[i] = strconv.Itoa(c)
	}
	return strings.Join(parts, ",")
}
