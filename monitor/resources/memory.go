package resources

import (
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/api"
)

func (h host) memory(info string) api.ResourcesMemory {
	kib := memInfo(info)
	total, page := kib["MemTotal"]<<10, kib["Hugepagesize"]<<10
	out := api.ResourcesMemory{
		Total: total, Used: total - min(total, kib["MemAvailable"]<<10), HugepagesSize: page,
		HugepagesTotal: kib["HugePages_Total"] * page, HugepagesUsed: used(kib["HugePages_Total"], kib["HugePages_Free"]) * page,
	}
	for _, name := range h.names("sys/devices/system/node") {
		digits, ok := strings.CutPrefix(name, "node")
		n, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil {
			continue
		}
		kib := memInfo(h.text("sys/devices/system/node", name, "meminfo"))
		out.Nodes = append(out.Nodes, api.ResourcesMemoryNode{
			NUMANode: n, Total: kib["MemTotal"] << 10, Used: used(kib["MemTotal"], kib["MemFree"]+kib["FilePages"]) << 10,
			HugepagesTotal: kib["HugePages_Total"] * page, HugepagesUsed: used(kib["HugePages_Total"], kib["HugePages_Free"]) * page,
		})
	}
	return out
}

func used(total, free uint64) uint64 { return total - min(total, free) }

// memInfo reads lines like "MemTotal: 1 kB"; those of a NUMA node begin with "Node 0".
func memInfo(text string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(line, ":")
		names, values := strings.Fields(k), strings.Fields(v)
		if len(names) > 0 && len(values) > 0 {
			out[names[len(names)-1]], _ = strconv.ParseUint(values[0], 10, 64)
		}
	}
	return out
}
