// Package storage keeps pools and volumes: where instance roots live.
//
// A pool has a driver (storage/driver says what one must do; dir and btrfs exist) and a record in the table "pools"; a
// volume has a directory in its pool and a record in the table "volumes". Records are written before what they
// describe is made and removed after it is gone, with the phase in them, so that [Service.Recover] after a crash
// knows what was meant: a pool or volume that was being made is undone, one that was being deleted or renamed is finished.
//
// Pools are opened when they are first needed. One that cannot be opened (its disk is missing, its filesystem is broken)
// is listed with the status Unavailable and the reason in its description, is tried again on the next use, and its volumes
// stay recorded; nothing is ever made in its place.
//
// The root of an instance is a directory with upper/ and work/, the writable layer of an overlay over the image, owned
// unshifted. What is below it belongs to the guest and is never followed by path.
//
// Files: service.go is the service and its start; pools.go and volumes.go are what REST and instances call; config.go
// says which configuration keys exist.
package storage
