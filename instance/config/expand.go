package config

import (
	"maps"

	"github.com/shoal-project/shoal/api"
)

// Expand applies profiles in order and then the instance's own configuration and devices. Keys of the later win;
// a device replaces a whole device of the same name. The results are the caller's own.
func Expand(profiles []api.ProfilePut, cfg api.Config, devs api.Devices) (api.Config, api.Devices) {
	outCfg, outDevs := api.Config{}, api.Devices{}
	for _, p := range profiles {
		maps.Copy(outCfg, p.Config)
		addDevices(outDevs, p.Devices)
	}
	maps.Copy(outCfg, cfg)
	addDevices(outDevs, devs)
	return outCfg, outDevs
}

// CloneDevices returns a deep copy; never nil.
func CloneDevices(devs api.Devices) api.Devices {
	out := api.Devices{}
	addDevices(out, devs)
	return out
}

func addDevices(to, from api.Devices) {
	for name, dev := range from {
		to[name] = maps.Clone(dev)
	}
}
