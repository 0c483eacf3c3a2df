// Command shoal-agent serves the daemon from inside a guest, with the authority of the guest's root and no other.
//
//	shoal-agent serve    start commands and file sessions for the driver at the other end of standard input (package agentproto)
//	shoal-agent sftp     speak SFTP on standard input and output until the input ends
//	shoal-agent pause    do nothing, as the init of a throw-away container
//
// It is never in the guest's file system: the daemon hands it in as a sealed file in memory and the runtime
// executes it from a descriptor. Paths therefore resolve as the guest resolves them, and a link to a file of
// the host's kernel is refused by the kernel, because the guest may not write there either.
//
// The guest's file tree is hostile to the agent too: a FIFO or a device under a name that the daemon asks for must neither
// block nor do anything, so only regular files are opened.
package main
