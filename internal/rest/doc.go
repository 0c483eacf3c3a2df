// Package rest is the HTTP side of the daemon: it speaks the REST API of LXD 5.0 and Incus.
//
// There is one file per resource. A handler parses the request into name types, calls a service through a small interface
// declared here, and returns a response; it holds no business rule. [endpoints] is the whole routing table: a path that is
// not in it is 404, a method that a path does not have is 501, as clients expect.
//
// # Limits
//
// JSON bodies are at most [MaxJSON], headers must arrive within [HeaderTimeout], a websocket's text frame is at most
// 64 KiB. Uploads are streams without a limit of their own: the service that takes them bounds them. A listener to
// events that does not keep up is dropped.
//
// # Not ready
//
// The socket is there from the first moment. Until [Server.SetReady] every endpoint that needs a service answers 503
// with LXD's text.
package rest
