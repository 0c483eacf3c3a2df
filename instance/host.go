package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/instance/config"
	"github.com/shoal-project/shoal/internal/idmap"
)

// hostLimits returns what relative limits refer to.
func hostLimits() (config.Host, error) {
	var h config.Host
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return h, err
	}
	h.MemoryBytes = int64(si.Totalram) * int64(si.Unit)
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return h, err
	}
	h.CPUs, err = config.ParseCPUSet(strings.TrimSpace(string(b)))
	return h, err
}

// hostIDRange is what the host lends root: the largest range that its entries of both files have, or the default when it has none.
func hostIDRange() (idmap.Range, error) {
	uids, err := subIDs("/etc/subuid")
	if err != nil {
		return idmap.Range{}, err
	}
	gids, err := subIDs("/etc/subgid")
	if err != nil {
		return idmap.Range{}, err
	}
	return idmap.HostRange(uids, gids)
}

// subIDs reads root's entries; none when there is no such file.
func subIDs(file string) ([]idmap.Range, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("subordinate ids: %w", err)
	}
	defer f.Close()
	out, err := idmap.ParseSubIDs(f, "root", 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return out, nil
}

// architectures are LXD's names of what Go calls GOARCH.
var architectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x", "loong64": "loongarch64"}

func hostArchitecture() string { return architectures[runtime.GOARCH] }

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func contains(list []string, s string) bool { return slices.Contains(list, s) }
