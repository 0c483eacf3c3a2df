// Package world is what all machines see: strings and string maps, resources that one machine exports and others collect,
// deploys, the machines and the members of the database. It is a library over any [kvstore.Client]; the daemon serves it under /1.0/world.
//
// # Rooms
//
//   - world/names: the namespace, how keys are made and read, the names of machines.
//   - world/watch: the one way to be told of changes.
//
// The file system, the scheduler and the transport over ssh stand beside these and use them.
//
// # Layout
//
// All keys are below the namespace (default /shoal/world), each part escaped, so that no name can be taken for two parts:
//
//	strings/<key>                            a string, as it is
//	stringmaps/<key>/<machine>               one machine's entry
//	exports/<to>/<kind>/<from>/<name>        what <from> exports to <to>, a machine or "*"
//	exporters/<from>/<to>/<kind>/<name>      which set of <from> the export belongs to: how <from> finds its own
//	deploys/head                             number and digest of the newest deploy
//	deploys/floor                            number and digest of the newest deploy that was pruned
//	deploys/record/<id>, deploys/payload/<id>  one deploy; ids have 20 digits
//	deploys/status/<id>/<machine>            how far a machine is with it
//	fs/…                                     the file system's, see world/fs
//	machines/<machine>                       what a machine says of itself
//	alive/<machine>, grace/<machine>         leased: the machine is up; it was up a grace period ago
//
// # Writes
//
// Writing what is there already changes nothing: no revision, no event. Each call is one transaction unless its comment says otherwise, so a
// crash leaves all of it or nothing.
package world
