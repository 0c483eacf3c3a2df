// Package config keeps the server's configuration, the keys of PUT /1.0, in the cluster's state.
//
// Keys of LXD that this build knows but does not act on yet are refused with a clear error: to accept them and do
// nothing would be a lie. user.* keys are free.
package config
