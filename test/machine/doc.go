// Package machine tests the real rooms together in ring 2: database, storage, images, networks, containers and
// instances, in a network and mount namespace of their own, so that nothing of them meets the host's.
//
// A test begins with Isolate, which runs it again in a child process inside the namespaces.
package machine
