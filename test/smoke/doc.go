// Package smoke proves that machines become one World: each machine is a process with an elastic node, a World, a scheduler and the shared file system.
//
// TestSmoke follows the smoke test of mgmt's etcd package step by step, with Debian's etcdctl. TestWorld has three, four and five machines see the same of
// everything, kills one, and brings it back. Both wait for conditions and never for a time; they are of ring 2.
package smoke
