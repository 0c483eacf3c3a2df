// Command shoal-shim watches over one running container. It is started by the oci driver and outlives the daemon.
//
//	shoal-shim DIRECTORY        (descriptor 3: a pipe on which it reports the created instance)
//
// It runs in a mount namespace of its own, where it builds the root from id-mapped layers; the host's mount table never
// sees them, and they go when the container goes. It has the OCI runtime create the container, waits for the order to
// start it, holds the console (a log of the last MiB, any number of attached clients), reaps init, and writes down
// how it ended before it leaves. What it reads and writes is in package shimproto.
//
// A shim that is killed takes the console along, and nothing else: the container goes on, and the driver
// watches its init by itself. Only the way in which init ended (reboot or not) is then unknown.
//
// It imports the standard library and x/sys only: it is resident once per container, so every page counts.
package main
