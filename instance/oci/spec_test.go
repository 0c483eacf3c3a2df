package oci_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-project/shoal/instance/driver"
	"github.com/shoal-project/shoal/instance/oci"
	"github.com/shoal-project/shoal/internal/errs"
)

var update = flag.Bool("update", false, "write the golden files anew")

func facts() oci.Facts {
	return oci.Facts{Layout: oci.LayoutHybrid, Seccomp: true, Caps: 1<<41 - 1, NoFile: 20000, OOMAdjust: -999, Arch: "amd64"}
}

func spec() driver.Spec {
	return driver.Spec{
		ID: "c1", Hostname: "c1", IDMap: driver.IDMap{Base: 1000000, Size: 65536},
		Root: driver.Root{Lower: []string{"/image"}, Data: "/data"},
	}
}

func TestBuildSpecGolden(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*driver.Spec, *oci.Facts)
	}{
		{"unprivileged", func(*driver.Spec, *oci.Facts) {}},
		{"privileged", func(s *driver.Spec, f *oci.Facts) { s.IDMap, f.Caps = driver.IDMap{}, f.Caps&^(1<<24) }},
		{"nesting-limits-mounts", func(s *driver.Spec, f *oci.Facts) {
			s.Nesting, f.Layout, f.Devices = true, oci.LayoutV2, []string{"/dev/fuse"}
			s.Limits = driver.Limits{MemoryBytes: 1 << 30, CPUs: "0-1", CPUQuota: 25 * time.Millisecond, Processes: 100}
			s.Rlimits = []driver.Rlimit{{Name: "core", Hard: driver.Unlimited}, {Name: "nofile", Soft: 3000, Hard: 4000}}
			s.Mounts = []driver.Mount{{Source: "/a", Target: "/b", ReadOnly: true}, {Source: "/c", Target: "/d", Shift: true}}
			s.Init, s.Env = []string{"/bin/app", "--flag"}, map[string]string{"container": "oci", "A": "b"}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, f := spec(), facts()
			tt.change(&s, &f)
			out, err := oci.BuildSpec(s, f, "/shoal/c1.0")
			must(t, err)
			got, err := json.MarshalIndent(out, "", " ")
			must(t, err)
			if strings.Contains(string(got), "[]") {
				t.Error("an empty list is not the same as none to a runtime")
			}
			golden := filepath.Join("testdata", tt.name+".json")
			if *update {
				must(t, os.WriteFile(golden, append(got, '\n'), 0o644))
			}
			want, err := os.ReadFile(golden)
			must(t, err)
			if string(want) != string(got)+"\n" {
				t.Errorf("differs from %s (go test -update writes it anew):\n%s", golden, got)
			}
		})
	}
}

func TestCgroupView(t *testing.T) {
	for _, tt := range []struct {
		view, layout, typ string
		class             errs.Class
	}{
		{"auto", oci.LayoutHybrid, "cgroup2", 0}, {"", oci.LayoutV2, "cgroup", 0}, {"auto", oci.LayoutV1, "cgroup", 0},
		{"v1", oci.LayoutHybrid, "cgroup", 0}, {"v2", oci.LayoutHybrid, "cgroup2", 0},
		{"v1", oci.LayoutV2, "", errs.UnsupportedClass}, {"v2", oci.LayoutV1, "", errs.UnsupportedClass},
		{"v3", oci.LayoutV2, "", errs.InvalidInput},
	} {
		t.Run(tt.view+" on "+tt.layout, func(t *testing.T) {
			s, f := spec(), facts()
			s.CgroupView, f.Layout = tt.view, tt.layout
			out, err := oci.BuildSpec(s, f, "/x")
			if tt.typ == "" {
				if !errs.Is(err, tt.class) {
					t.Errorf("got %v", err)
				}
				return
			}
			must(t, err)
			if m := out.Mounts[len(out.Mounts)-1]; m.Destination != "/sys/fs/cgroup" || m.Type != tt.typ {
				t.Errorf("mount %+v, want %s", m, tt.typ)
			}
		})
	}
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"1.1.5+ds1": true, "1.1.4": false, "1.0.0~rc93": false, "1.5.2": true, "2.0": true, "1.1.12-1": true, "": false, "x.y": false, "1": false,
	} {
		if err := oci.CheckVersion("runc", version); (err == nil) != ok || err != nil && !errs.Is(err, errs.UnsupportedClass) {
			t.Errorf("%q: %v", version, err)
		}
	}
	if v, err := oci.ParseVersion([]byte("runc version 1.1.5+ds1\ncommit: x\n")); err != nil || v != "1.1.5+ds1" {
		t.Errorf("%q, %v", v, err)
	}
	for _, bad := range []string{"", "runc", "hello there world", "\x00"} {
		if _, err := oci.ParseVersion([]byte(bad)); !errs.Is(err, errs.UnsupportedClass) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

const hybridMounts = `25 20 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw
26 25 0:24 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
27 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
28 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
29 25 0:27 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory
30 25 0:28 /elsewhere /mnt/pids rw - cgroup cgroup rw,pids
`

func TestParseCgroups(t *testing.T) {
	const proc = "5:memory:/session/abc/shoal/c1.0\n4:cpu,cpuacct:/shoal/c1.0\n3:pids:/shoal/c1.0\n1:name=systemd:/shoal/c1.0/init.scope\n0::/shoal/c1.0/init.scope/deep\n"
	c, err := oci.ParseCgroups(proc, hybridMounts, "c1.0")
	must(t, err)
	for name, want := range map[string]string{
		"": "/sys/fs/cgroup/unified/shoal/c1.0", "name=systemd": "/sys/fs/cgroup/systemd/shoal/c1.0",
		"cpuacct": "/sys/fs/cgroup/cpu,cpuacct/shoal/c1.0", "memory": "/sys/fs/cgroup/memory/session/abc/shoal/c1.0", "pids": "",
	} {
		if c[name] != want {
			t.Errorf("%s: %q, want %q", name, c[name], want)
		}
	}
	if _, err := oci.ParseCgroups("0::/other\n", hybridMounts, "c1.0"); !errs.IsNotFound(err) {
		t.Errorf("a process elsewhere: %v", err)
	}
	if _, err := oci.ParseCgroups("0::/a/../c1.0\n", hybridMounts, "c1.0"); err == nil {
		t.Error("a path with .. is accepted")
	}
}

func TestLayout(t *testing.T) {
	for _, tt := range []struct{ mounts, want string }{
		{hybridMounts, oci.LayoutHybrid},
		{"26 25 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", oci.LayoutV2},
		{"29 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", oci.LayoutV1},
		{"", ""},
	} {
		if got, err := oci.Layout(tt.mounts); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: %q, %v", tt.mounts, got, err)
		}
	}
}

func TestStatsFromFiles(t *testing.T) {
	write := func(dir string, files map[string]string) string {
		for name, text := range files {
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
		return dir
	}
	v2 := write(t.TempDir(), map[string]string{
		"cpu.stat":       "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n",
		"memory.current": "4096\n", "memory.peak": "8192\n", "memory.swap.current": "10\n", "memory.swap.peak": "20\n", "pids.current": "7\n",
	})
	want := driver.Stats{CPU: 1500 * time.Millisecond, Memory: 4096, MemoryPeak: 8192, Swap: 10, SwapPeak: 20, Processes: 7}
	if got := (oci.Cgroups{"": v2}).Stats(); got != want {
		t.Errorf("v2: %+v, want %+v", got, want)
	}
	v1 := write(t.TempDir(), map[string]string{
		"cpuacct.usage": "1500000000\n", "memory.usage_in_bytes": "4096\n", "memory.max_usage_in_bytes": "8192\n",
		"memory.memsw.usage_in_bytes": "4106\n", "memory.memsw.max_usage_in_bytes": "8212\n", "pids.current": "7\n",
	})
	if got := (oci.Cgroups{"cpuacct": v1, "memory": v1, "pids": v1, "": "/nowhere"}).Stats(); got != want {
		t.Errorf("v1: %+v, want %+v", got, want)
	}
}

func FuzzParseCgroups(f *testing.F) {
	f.Add("0::/shoal/c1.0\n", hybridMounts)
	f.Add("1:a,b:/c1.0", "1 2 3 / /x - cgroup a b,c")
	f.Fuzz(func(t *testing.T, proc, mounts string) {
		c, err := oci.ParseCgroups(proc, mounts, "c1.0")
		if err != nil {
			return
		}
		for name, dir := range c {
			if filepath.Base(dir) != "c1.0" {
				t.Errorf("%s leads to %s", name, dir)
			}
		}
		_, _ = oci.Layout(mounts)
	})
}
