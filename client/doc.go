// Package client is the Go client of Shoal's REST API.
//
// Begin with [Connect], which finds the daemon's unix socket. The [Client] has one file of methods per kind of
// object: instances.go, images.go, networks.go and so on. Its methods send exactly one request each, take a context
// first, are safe for concurrent use, and return the types of package api as they were on the wire.
//
// What takes time returns an [Operation]; [Operation.Wait] follows it to its end. Commands in instances
// ([Client.Exec]) and consoles ([Client.Console]) connect the caller's streams through websockets, [Client.Events] is the
// server's stream of news.
//
// Errors that the server sent are an [*Error]: decide on its Status, or with [IsNotFound] and its sisters, never
// on the text. An error that says the daemon cannot be reached is a [*ConnectError], whose text tells a user what
// to do next.
//
// The package imports package api, the standard library and a websocket library; it knows nothing of
// terminals. A Client keeps no state on disk.
package client
