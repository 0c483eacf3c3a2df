// Package ssh reaches a World whose database listens only where an ssh server can connect to: it is a dialer that goes through one.
//
//	t, err := ssh.New(ssh.Config{Routes: []ssh.Route{route}, KnownHosts: files, Keys: keys})
//	backend, err := etcd.Dial(etcd.Config{Endpoints: []string{"http://127.0.0.1:2379"}, Dial: t.Dial}, log)
//
// # Words
//
// A [Hop] is an ssh server and the user there; a [Route] is a chain of hops, each reached through the one before, as ssh -J has it. A
// [Tunnel] has one connection, over the first of its routes that works, tried in order; all that is dialled through it shares that. A target
// is an address as the last hop sees it: tcp host:port, or the path of a unix socket there.
//
// # What always holds
//
//   - No server is spoken to whose key is not known: by known_hosts (hashed names, certificate authorities and revocations too) or pinned to the
//     hop. Nothing is learned on first use, and the kinds of keys that are known for a server are the ones that it is asked for.
//   - Login is by key: files, then an agent; no passwords. Keys and known_hosts are read anew for each connection.
//   - A connection that does not answer keep-alives is given up, with all that goes through it; the next dial makes another, over whichever
//     route works then, with pauses that grow while none does.
//   - Closing what was dialled returns at once, whether the server answers or not; closing the tunnel leaves nothing running.
//
// On the server a line of authorized_keys with restrict,port-forwarding,permitopen="127.0.0.1:2379" is all that the user needs.
package ssh
