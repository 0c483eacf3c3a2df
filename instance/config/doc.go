// Package config decides what the configuration of an instance means. Everything in it is a pure function over
// values: no store, no host, no clock.
//
//   - keys.go – the table of configuration keys, a schema.Table: type, default, whether a change is applied live, what it is for;
//   - check.go – [Check], which refuses unknown keys, wrong values, and keys whose effect would be a lie;
//   - devices.go – [ParseDevices], which turns the devices map into typed disks and NICs;
//   - expand.go – [Expand], profiles in order, then the instance's own;
//   - limits.go – [Limits], the resource limits that a driver gets, and the types of the limits.* keys;
//   - cpus.go – [Balance], which CPUs those instances get that ask for a number of them;
//   - rlimits.go – [Rlimits], what limits.kernel.* means.
//
// A key of LXD that this version does not implement is still known: it may be set to the value that describes what
// happens anyway (its neutral value), and is refused with a clear error otherwise.
package config
