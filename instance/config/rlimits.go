package config

import (
	"errors"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/internal/schema"
)

const rlimitPrefix = "limits.kernel."

// rlimitNames are the kernel's limits that can be set, sorted.
func rlimitNames() []string {
	return []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "nice", "nofile", "nproc", "rtprio", "sigpending"}
}

// Rlimits returns what checked limits.kernel.* ask for, sorted by name. The kernel may refuse to raise a limit above the
// daemon's own: the start of the instance says so.
func Rlimits(cfg api.Config) []driver.Rlimit {
	var out []driver.Rlimit
	for _, name := range rlimitNames() {
		if soft, hard, err := parseRlimit(cfg[rlimitPrefix+name]); err == nil {
			out = append(out, driver.Rlimit{Name: name, Soft: soft, Hard: hard})
		}
	}
	return out
}

// parseRlimit reads "100" (both), "100:200" (soft and hard); each can be "unlimited".
func parseRlimit(v string) (soft, hard uint64, err error) {
	a, b, both := strings.Cut(v, ":")
	if !both {
		b = a
	}
	if soft, err = rlimitNumber(a); err == nil {
		hard, err = rlimitNumber(b)
	}
	if err == nil && soft > hard {
		err = errors.New("the soft limit is higher than the hard limit")
	}
	return soft, hard, err
}

func rlimitNumber(v string) (uint64, error) {
	if v == "unlimited" {
		return driver.Unlimited, nil
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return 0, errors.New("must be a number such as 100, a soft and a hard one such as 100:200, or unlimited")
	}
	return n, nil
}

func rlimitType() schema.Type {
	return schema.Custom("limit", "a number such as 100, a soft and a hard one such as 100:200, or unlimited", func(v string) error {
		_, _, err := parseRlimit(v)
		return err
	})
}
