// Package pki makes and checks the certificates with which the machines of one cluster know each other.
//
// A cluster has one authority ([CA]). Each certificate carries a [Role] as a DNS name that exists nowhere: a member serves and uses the
// database, a client may only use it. What a connection may do is decided by the role, not by the address that it comes from, so a machine
// may change its address without a new certificate.
//
// Certificates lie in files ([Files]) and are read again at each handshake, the authority's too: whoever renews them restarts nothing. During a change of
// authority its file holds both, the old and the new.
package pki
