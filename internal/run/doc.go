// Package run is the only door to host programs: nothing else in the daemon may import os/exec.
//
// A [Command] keeps apart what we wrote (Name, Args) and what came from elsewhere (Operands). Operands are
// put behind "--", so that none of them can become an option; a program that does not know "--" gets
// NoGuard, and then an operand with a leading hyphen is refused. There is no shell, so nothing is ever
// quoted. The environment is a short fixed one plus what the command names. Every program has a time
// limit, runs in a process group of its own that dies as a whole, and its output is kept only up to a limit.
//
// Rooms take a [Runner] in their Deps; the daemon gives them [Host], tests a [Recorder].
//
// A program that does not exist is errs.Unsupported and names the Debian package to install; one that
// fails is an [*Error] with its exit code and the end of what it wrote to stderr; a time limit or a
// cancelled context stays visible to errors.Is.
//
// The shim and the agent (cmd/shoal-shim, cmd/shoal-agent) are programs of their own and do not use this.
package run
