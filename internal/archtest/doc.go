// Package archtest keeps the house in order: it holds the rules of the architecture as data, each with its reason, and
// its test checks every package of the module against them.
//
// The main rule: rooms stand on lines ([Rooms]), and a room imports only rooms on lower lines, never one of its own
// line. A room is a directory with all below it; the longest matching path decides. What is special about single rooms stands in
// [OnlyFrom] (who may import a package) and [OnlyThese] (what a package may import). Tests may import what they like.
//
// A new package must be given its place in [Rooms] before it builds into the daemon. If a rule stands in the way of something
// good, change the rule and its reason, in a commit of its own that says why.
package archtest
