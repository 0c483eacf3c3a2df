// Package api holds the words that Shoal speaks with the outside: the JSON types of its REST API
// (the one of LXD 5.0 and Incus, so that their clients work unmodified), status codes, the list of
// API extensions, and the name types.
//
// Name types ([InstanceName], [ProjectName], [Fingerprint], …) are the fourth door of the house:
// a string that came from outside becomes a path, a key or an argument only as one of them, and
// each has one constructor, Parse…, that validates. The JSON types carry plain strings, exactly
// what was on the wire; rest parses them before it hands them on.
//
// The package imports the standard library only.
package api
