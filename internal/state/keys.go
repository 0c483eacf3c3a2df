package state

import (
	"net/url"
	"strings"
)

// DefaultPrefix is under which all keys live.
const DefaultPrefix = "/shoal/v1/"

// The tables of the cluster, the first part of every key. A room's own tables begin with the room's name.
const (
	Config       = "config"       // cluster configuration
	Members      = "members"      // <member>
	Projects     = "projects"     // <project>
	Profiles     = "profiles"     // <project>/<profile>
	Instances    = "instances"    // <project>/<instance>
	Snapshots    = "snapshots"    // <project>/<instance>/<snapshot>
	Images       = "images"       // <fingerprint>
	Networks     = "networks"     // <project>/<network>
	Pools        = "pools"        // <pool>
	Volumes      = "volumes"      // <pool>/<project>/<type>/<volume>
	Certificates = "certificates" // <fingerprint>
	Operations   = "operations"   // <id>, leased
	Status       = "status"       // <member>/<project>/<instance>, leased
	Warnings     = "warnings"     // <id>
)

// Key joins parts into a table key; each part is escaped, so no part can be taken for two. Empty parts are allowed.
func Key(parts ...string) string {
	esc := make([]string, len(parts))
	for i, p := range parts {
		esc[i] = url.PathEscape(p)
	}
	return strings.Join(esc, "/")
}

// Prefix returns the beginning of all keys whose first parts are these: Key(parts...) and a slash, "" for no parts.
func Prefix(parts ...string) string {
	if len(parts) == 0 {
		return ""
	}
	return Key(parts...) + "/"
}

// SplitKey is the inverse of Key. A part that Key cannot have made is returned as it is.
func SplitKey(key string) []string {
	parts := strings.Split(key, "/")
	for i, p := range parts {
		if u, err := url.PathUnescape(p); err == nil {
			parts[i] = u
		}
	}
	return parts
}
