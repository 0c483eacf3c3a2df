package resources

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
)

const cpuDir = "sys/devices/system/cpu"

// cpu reads sockets, cores and threads. Where the kernel does not say (most of arm64), all threads are cores of one
// socket.
func (h host) cpu(info, architecture string) api.ResourcesCPU {
	out := api.ResourcesCPU{Architecture: architecture, Sockets: []api.ResourcesCPUSocket{}}
	blocks := cpuInfo(info)
	isolated := cpuList(h.text(cpuDir, "isolated"))
	for _, id := range h.threads(blocks) {
		dir, f := path.Join(cpuDir, "cpu"+strconv.FormatInt(id, 10)), blocks[id]
		socket := socketOf(&out, h.topology(dir, "physical_package_id", f["physical id"], 0))
		if socket.Name == "" {
			socket.Name, socket.Vendor = f["model name"], f["vendor_id"]
			socket.Cache = h.caches(dir)
			socket.FrequencyMinimum = h.number(dir, "cpufreq/cpuinfo_min_freq") / 1000
			socket.FrequencyTurbo = h.number(dir, "cpufreq/cpuinfo_max_freq") / 1000
		}
		core := coreOf(socket, h.topology(dir, "core_id", f["core id"], uint64(id)), h.number(dir, "topology/die_id"))
		if core.Frequency = h.number(dir, "cpufreq/scaling_cur_freq") / 1000; core.Frequency == 0 {
			mhz, _ := strconv.ParseFloat(f["cpu MHz"], 64)
			core.Frequency = uint64(mhz)
		}
		core.Threads = append(core.Threads, api.ResourcesCPUThread{
			ID: id, NUMANode: h.nodeOf(dir), Thread: uint64(len(core.Threads)),
			Online: h.text(dir, "online") != "0", Isolated: isolated[id],
		})
		out.Total++
	}
	for i := range out.Sockets {
		out.Sockets[i].Frequency = meanFrequency(out.Sockets[i].Cores)
	}
	return out
}

// cpuInfo cuts /proc/cpuinfo into processors.
func cpuInfo(text string) map[int64]map[string]string {
	blocks := map[int64]map[string]string{}
	for block := range strings.SplitSeq(text, "\n\n") {
		f := map[string]string{}
		for line := range strings.Lines(block) {
			k, v, _ := strings.Cut(line, ":")
			f[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
		if id, err := strconv.ParseInt(f["processor"], 10, 64); err == nil {
			blocks[id] = f
		}
	}
	return blocks
}

// threads are the numbers of all threads, those that are offline and so not in /proc/cpuinfo too.
func (h host) threads(blocks map[int64]map[string]string) []int64 {
	var ids []int64
	for _, name := range h.names(cpuDir) {
		digits, ok := strings.CutPrefix(name, "cpu")
		if id, err := strconv.ParseInt(digits, 10, 64); ok && err == nil {
			ids = append(ids, id)
		}
	}
	for id := range blocks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// topology is a number of /sys, else that of /proc/cpuinfo, else other.
func (h host) topology(dir, file, info string, other uint64) uint64 {
	for _, s := range []string{h.text(dir, "topology", file), info} {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			return n
		}
	}
	return other
}

func socketOf(c *api.ResourcesCPU, number uint64) *api.ResourcesCPUSocket {
	i := slices.IndexFunc(c.Sockets, func(s api.ResourcesCPUSocket) bool { return s.Socket == number })
	if i < 0 {
		i = len(c.Sockets)
		c.Sockets = append(c.Sockets, api.ResourcesCPUSocket{Socket: number, Cores: []api.ResourcesCPUCore{}})
	}
	return &c.Sockets[i]
}

func coreOf(s *api.ResourcesCPUSocket, number, die uint64) *api.ResourcesCPUCore {
	i := slices.IndexFunc(s.Cores, func(c api.ResourcesCPUCore) bool { return c.Core == number && c.Die == die })
	if i < 0 {
		i = len(s.Cores)
		s.Cores = append(s.Cores, api.ResourcesCPUCore{Core: number, Die: die, Threads: []api.ResourcesCPUThread{}})
	}
	return &s.Cores[i]
}

// meanFrequency is that of the cores that have one; those that are offline have none.
func meanFrequency(cores []api.ResourcesCPUCore) uint64 {
	sum, n := uint64(0), uint64(0)
	for _, c := range cores {
		if c.Frequency > 0 {
			sum += c.Frequency
			n++
		}
	}
	return sum / max(1, n)
}

func (h host) caches(dir string) []api.ResourcesCPUCache {
	var out []api.ResourcesCPUCache
	for _, name := range h.names(dir, "cache") {
		if !strings.HasPrefix(name, "index") {
			continue
		}
		size := h.text(dir, "cache", name, "size")
		n, _ := strconv.ParseUint(strings.TrimRight(size, "KMG"), 10, 64)
		switch {
		case strings.HasSuffix(size, "K"):
			n <<= 10
		case strings.HasSuffix(size, "M"):
			n <<= 20
		case strings.HasSuffix(size, "G"):
			n <<= 30
		}
		out = append(out, api.ResourcesCPUCache{Level: h.number(dir, "cache", name, "level"), Type: h.text(dir, "cache", name, "type"), Size: n})
	}
	slices.SortStableFunc(out, func(a, b api.ResourcesCPUCache) int { return cmp.Compare(a.Level, b.Level) })
	return out
}

// nodeOf is the NUMA node of a processor: its directory has a link called nodeN.
func (h host) nodeOf(dir string) uint64 {
	for _, name := range h.names(dir) {
		if digits, ok := strings.CutPrefix(name, "node"); ok {
			if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
				return n
			}
		}
	}
	return 0
}

// cpuList reads a list like "0-3,8".
func cpuList(s string) map[int64]bool {
	out := map[int64]bool{}
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseInt(from, 10, 64)
		if err != nil {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.ParseInt(to, 10, 64); err != nil {
				continue
			}
		}
		for ; a <= b && len(out) < 1<<16; a++ {
			out[a] = true
		}
	}
	return out
}
