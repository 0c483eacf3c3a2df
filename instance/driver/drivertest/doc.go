// Package drivertest proves that a driver does what package driver says. Every driver and the fake pass it.
package drivertest
