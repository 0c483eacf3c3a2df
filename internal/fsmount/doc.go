// Package fsmount mounts filesystems that live in files and devices: loop devices, the kernel's file-descriptor mount
// interface, and the question whether something is mounted at a path.
//
// image and storage both need it and may not know each other. Nothing here remembers anything: what is mounted is asked
// of the kernel each time, so a restarted daemon sees what its predecessor left.
//
// All mounts are attached in the mount namespace of the daemon and are made private, so that they reach no other
// namespace by propagation, except that a namespace created later starts with a copy, as always.
package fsmount
