// Package trust keeps who may speak with this cluster over TLS: the trust store, one-time tokens, the trust password, and the
// server's own certificate.
//
// # Trust store
//
// A certificate is trusted by its SHA-256 fingerprint, never by who signed it. [Service.Caller] finds out what a peer's certificate is
// good for; it is asked for every request, so that a certificate that was removed, limited or has expired loses its rights with the
// next one. Everything is read from the memory of the cluster's state.
//
// # Tokens
//
// A token is a random secret of 256 bits that an administrator makes and somebody else uses once. Name, type and projects are fixed by
// the token. Using it is one transaction, which removes the token and adds the certificate: of many who use it at the same moment on
// whatever members, one wins. Tokens outlive the daemon, are valid on all addresses of all members, and may expire.
//
// # Guessing
//
// Who is not trusted may try [AttemptBurst] times, then once a second, per address; trust passwords are slow to compute on purpose,
// so they are limited for everybody together too. Secrets are compared in constant time. What was wrong is not said.
//
// # Crash
//
// Each change is one transaction. The server's key is written before its certificate, which can be made again from it.
package trust
