// Package resources reads what hardware a host has from /proc and /sys, in the words of the REST API.
//
//	r, err := resources.Read(os.DirFS("/"), "x86_64")
//
// Only /proc/cpuinfo and /proc/meminfo have to be there. What the kernel does not tell (a virtual machine has no
// frequencies, a small kernel no NUMA nodes) is left out or zero, as the API does. Nothing is run and nothing is written.
// The tests read made-up trees and the host itself.
package resources
