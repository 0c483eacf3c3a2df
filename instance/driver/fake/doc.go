// Package fake is a driver without a host: instances are values in memory. It passes drivertest like the
// real drivers and has a fault language, so that what is above the drivers is tested against failures that
// a real runtime shows once in a year.
//
// A [Host] plays the machine: it outlives drivers as a machine outlives daemons. [New] plays a daemon
// start, [Driver.Close] a daemon's death: instances go on, and what exits meanwhile is what Recover of the
// next driver on the same host reports.
//
// # Fault language
//
// [Host.Inject] takes rules, one a line; empty lines and lines that begin with # are skipped:
//
//	OP ID [nth N] ACTION [ARG…]
//
// OP is a method's name in lower case (create, start, shutdown, kill, freeze, unfreeze, exec, console, consolelog,
// clearconsolelog, files, stats, setlimits, cleanup, recover) or *; ID a runtime ID or *. "nth N" makes the rule apply to the Nth
// matching call only (1 is the first); without it the rule applies to all. The first rule that matches wins. Actions:
//
//	error CLASS TEXT…   the call has no effect and fails; CLASS as errs.Class prints it
//	after CLASS TEXT…   the call has its effect and fails all the same (the answer got lost)
//	hang                the call waits until its context ends, without effect
//	exit CODE           the call has its effect, then the instance's init exits with CODE
//	reboot              the call has its effect, then the guest asks for a restart
//	ignore              the call reports success without effect (a guest that does not react)
package fake
