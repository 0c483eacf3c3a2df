// Package oci runs containers: it implements driver.Driver with an OCI runtime (runc) under one shoal-shim per container.
//
// # Who does what
//
// The driver writes the runtime's specification ([BuildSpec], a pure function) and the shim's configuration into Spec.Dir
// and starts the shim. The shim (cmd/shoal-shim) mounts the root in its own mount namespace, has the runtime create the
// container, holds console and commands, and records the exit. They talk through the files and the control socket that package
// shimproto describes. The driver sends signals, freezes, and reads resource use by itself, through pidfds and cgroup files.
//
// # Commands and files
//
// Starting a command with the runtime takes about 20 ms. So the first one in an instance has the runtime start an agent (shoal-agent
// serve), which stays and starts this and all that follow, and the servers of file sessions, in a millisecond each: as its children
// they have what the runtime gave it (namespaces, cgroups, capabilities, filters, limits), and the test that compares the two ways
// line by line keeps it so. One thing differs on purpose: a program that its user may not execute is refused (126), where the runtime
// lends the user root's rights for the execve. Package agentproto describes how driver and agent speak and why no command runs
// twice. An agent leaves after [Config].AgentIdle without use, or when the daemon ends; commands go on. The guest can end or stop it
// as any of its processes: whose command was running gets an error, the next one gets a new agent, and when an agent does not answer,
// the runtime does the work as it does for what is too long for a message.
//
// # What is where
//
//	Config.Dir/ID.json    the Spec of every instance that has or had a process; written first, removed last
//	Spec.Dir/             see shimproto
//	Spec.LogDir/console.log
//	cgroup /shoal/ID.HASH in every hierarchy; the hash of Spec.Dir keeps two daemons on one host apart
//
// # Crash
//
// Nothing of an instance depends on the daemon. [Driver.Recover] reads Config.Dir and finds for each entry: a shim (then it
// waits for it to have created the container, should it still be at that, and watches it), an exit record, or neither. A shim
// that was killed leaves a container without console: it is reported as running, can be signalled, frozen and killed, and its
// exit is noticed by init's pidfd, with code 255, as nobody saw the real one; commands and files need a restart of the
// instance, and say so. An agent ends with the daemon that started it. PIDs are compared with their start time and the boot ID, so a reused one is never touched.
//
// # Authority
//
// The daemon never opens a path inside a guest. Commands run under the runtime with the guest's ids and capabilities; files are
// served by cmd/shoal-agent, executed in the guest from a sealed memfd. For a stopped instance the agent runs in a
// throw-away container over the same root without network, which ends with its last session or when the instance starts.
package oci
