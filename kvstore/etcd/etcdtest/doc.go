// Package etcdtest runs real etcd members as processes of their own, so that tests can kill, pause and restart them while others use them.
//
// A member is the test binary itself, started again: the first line of TestMain is
//
//	etcdtest.Main()
//
// which does not return in a member. A member ends, as from kill -9, when its standard input does: none outlives its test, whatever
// becomes of that. Members listen on loopback only.
package etcdtest
