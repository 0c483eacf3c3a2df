// Package project keeps projects: sets of instances, images, profiles, networks and volumes that are kept apart.
//
// A project's features say which kinds it keeps for itself; for the others it shares those of the default project,
// which [Service.Effective] resolves. The default project always exists and has every feature.
package project
