// Package instancetest is what the instance service needs, in memory: volumes, images, networks and events that tests
// of this room and of the rooms above it can look into. [New] puts a service together on the fake driver.
//
// Host.Fail makes one call of a double fail, and Host.Check is the oracle: nothing is left without a record.
package instancetest
