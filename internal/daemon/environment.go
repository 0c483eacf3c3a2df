package daemon

import (
	"bufio"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-project/shoal/api"
)

// hostEnvironment describes what does not change while the daemon runs.
func hostEnvironment(version string) api.ServerEnvironment {
	env := api.ServerEnvironment{
		Addresses: []string{}, KernelFeatures: map[string]string{}, LXCFeatures: map[string]string{},
		Server: "shoal", ServerVersion: version, ServerPid: os.Getpid(), ServerEventMode: "full-mesh",
		Firewall: "nftables", StorageDrivers: []api.ServerStorageDriver{},
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		env.Kernel = unix.ByteSliceToString(u.Sysname[:])
		env.KernelVersion = unix.ByteSliceToString(u.Release[:])
		env.KernelArchitecture = unix.ByteSliceToString(u.Machine[:])
		env.Architectures = architectures(env.KernelArchitecture)
	}
	env.ServerName, _ = os.Hostname()
	env.OSName, env.OSVersion = osRelease("/etc/os-release")
	return env
}

// architectures are those whose programs the processor runs too.
func architectures(machine string) []string {
	switch machine {
	case "x86_64":
		return []string{"x86_64", "i686"}
	case "aarch64":
		return []string{"aarch64", "armv7l"}
	}
	return []string{machine}
}

func osRelease(path string) (name, version string) {
	f, err := os.Open(path)
	if err != nil {
		return "", ""
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		k, v, _ := strings.Cut(sc.Text(), "=")
		v = strings.Trim(v, `"'`)
		switch k {
		case "NAME":
			name = v
		case "VERSION_ID":
			version = v
		}
	}
	return name, version
}
