package daemon

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/monitor/resources"
)

// hostResources describes the hardware of this host.
func hostResources() (any, error) {
	var u unix.Utsname
	arch := ""
	if unix.Uname(&u) == nil {
		arch = unix.ByteSliceToString(u.Machine[:])
	}
	return resources.Read(os.DirFS("/"), arch)
}
