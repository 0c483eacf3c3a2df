package config

import (
	"errors"
	"regexp"
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

// Limits turns checked configuration into what a driver gets. chosen are the CPUs that [Balance] chose where limits.cpu is
// a number; a set in limits.cpu must be of CPUs that the host has.
func Limits(cfg api.Config, chosen []int, host Host) (driver.Limits, error) {
	l := driver.Limits{MemoryBytes: table.Size(cfg, "limits.memory", host.MemoryBytes), Processes: table.Int(cfg, "limits.processes")}
	a, err := parseAllowance(table.Get(cfg, "limits.cpu.allowance"))
	if err != nil {
		return l, err
	}
	l.CPUQuota, l.CPUPeriod = a.quota, a.period
	if cfg["limits.cpu.allowance"] != "" || cfg["limits.cpu.priority"] != "" {
		l.CPUShares = shares(a.percent, table.Int(cfg, "limits.cpu.priority"))
	}
	l.CPUs, err = cpuSet(cfg["limits.cpu"], chosen, host.CPUs)
	return l, err
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
