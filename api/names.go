package api

import (
	"fmt"
	"regexp"
	"strings"
)

// NameError says why a string is not a valid name of its kind.
type NameError struct {
	Kind   string // "instance", "profile", …
	Value  string // what was given
	Reason string // what is wrong, or what is allowed
}

// Error gives the text that LXD clients show, for example
// "Invalid instance name: Name must not start with a number".
func (e *NameError) Error() string { return fmt.Sprintf("Invalid %s name: %s", e.Kind, e.Reason) }

// BadInput marks the error as bad input for the error classes of the daemon.
func (e *NameError) BadInput() {}

type name struct{ s string }

// String returns the name as it was parsed.
func (n name) String() string { return n.s }

// IsZero reports whether this is the zero value, which no Parse function returns without an error.
func (n name) IsZero() bool { return n.s == "" }

// MarshalText makes names usable as JSON strings and map keys.
func (n name) MarshalText() ([]byte, error) { return []byte(n.s), nil }

// InstanceName is the name of a container or virtual machine: a DNS label of 1–63 letters, digits and
// hyphens that starts with a letter and does not end with a hyphen. Unique within a project.
type InstanceName struct{ name }

// SnapshotName is the part after the slash in "instance/snapshot".
type SnapshotName struct{ name }

// ProjectName is the name of a project; DefaultProject always exists.
type ProjectName struct{ name }

// ProfileName is the name of a profile within a project.
type ProfileName struct{ name }

// NetworkName is the name of a managed network and, where it is a bridge, of its host interface (≤ 15 bytes).
type NetworkName struct{ name }

// PoolName is the name of a storage pool.
type PoolName struct{ name }

// VolumeName is the name of a storage volume within a pool and project.
type VolumeName struct{ name }

// MemberName is the name of a cluster member.
type MemberName struct{ name }

// DeviceName is the key of a device in an instance's or profile's devices map.
type DeviceName struct{ name }

// AliasName is an image alias, which may contain slashes ("debian/12").
type AliasName struct{ name }

// Fingerprint is the full SHA-256 of an image or certificate: 64 lower-case hexadecimal digits.
type Fingerprint struct{ name }

// The names that always exist.
var (
	DefaultProject = ProjectName{name{"default"}}
	DefaultProfile = ProfileName{name{"default"}}
)

var (
	labelRE       = regexp.MustCompile(`^[A-Za-z0-9-]+$`)
	plainRE       = regexp.MustCompile(`^[A-Za-z0-9_.:@+-]+$`)
	networkRE     = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]*$`)
	aliasRE       = regexp.MustCompile(`^[A-Za-z0-9_.:@+-]+(/[A-Za-z0-9_.:@+-]+)*$`)
	fingerprintRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	prefixRE      = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
)

func bad(kind, value, reason string) error {
	return &NameError{Kind: kind, Value: value, Reason: reason}
}

// ParseInstanceName accepts what LXD accepts (see [InstanceName]); the reasons are LXD's own texts.
func ParseInstanceName(s string) (InstanceName, error) {
	const kind = "instance"
	switch {
	case len(s) < 1 || len(s) > 63:
		return InstanceName{}, bad(kind, s, "Name must be 1-63 characters long")
	case strings.Contains(s, "/"):
		return InstanceName{}, bad(kind, s, `The character "/" is reserved for snapshots`)
	case !labelRE.MatchString(s):
		return InstanceName{}, bad(kind, s, "Name can only contain alphanumeric and hyphen characters")
	case s[0] == '-':
		return InstanceName{}, bad(kind, s, `Name must not start with "-" character`)
	case s[len(s)-1] == '-':
		return InstanceName{}, bad(kind, s, `Name must not end with "-" character`)
	case s[0] >= '0' && s[0] <= '9':
		return InstanceName{}, bad(kind, s, "Name must not start with a number")
	}
	return InstanceName{name{s}}, nil
}

// plain is the rule for names that become path components and keys: 1–max bytes of letters, digits
// and _.:@+- that start neither with a dot nor with a hyphen.
func plain(kind, s string, max int) (name, error) {
	switch {
	case len(s) < 1 || len(s) > max:
		return name{}, bad(kind, s, fmt.Sprintf("Name must be 1-%d characters long", max))
	case s[0] == '.' || s[0] == '-':
		return name{}, bad(kind, s, fmt.Sprintf("Name must not start with %q", s[:1]))
	case !plainRE.MatchString(s):
		return name{}, bad(kind, s, "Name can only contain letters, digits and the characters _.:@+-")
	}
	return name{s}, nil
}

// ParseSnapshotName accepts 1–63 plain characters.
func ParseSnapshotName(s string) (SnapshotName, error) {
	n, err := plain("instance snapshot", s, 63)
	return SnapshotName{n}, err
}

// ParseProjectName accepts 1–63 plain characters; empty means the default project, as in a request
// without ?project=. Underscores are not allowed: the paths of other projects are "project_name".
func ParseProjectName(s string) (ProjectName, error) {
	if s == "" {
		return DefaultProject, nil
	}
	if strings.ContainsRune(s, '_') {
		return ProjectName{}, bad("project", s, `Name must not contain "_"`)
	}
	n, err := plain("project", s, 63)
	return ProjectName{n}, err
}

// ParseProfileName accepts 1–63 plain characters.
func ParseProfileName(s string) (ProfileName, error) {
	n, err := plain("profile", s, 63)
	return ProfileName{n}, err
}

// ParseNetworkName accepts 2–15 characters of [a-z0-9_.-]: it may become an interface name. "all" and "default" are refused: below
// /proc/sys/net they stand for every interface and for those to come.
func ParseNetworkName(s string) (NetworkName, error) {
	const kind = "network"
	switch {
	case len(s) < 2 || len(s) > 15:
		return NetworkName{}, bad(kind, s, "Name must be 2-15 characters long")
	case !networkRE.MatchString(s):
		return NetworkName{}, bad(kind, s, "Name can only contain lower case letters, digits and the characters _.- and must start with a letter or digit")
	case s == "all" || s == "default":
		return NetworkName{}, bad(kind, s, fmt.Sprintf("%q is reserved by the kernel", s))
	}
	return NetworkName{name{s}}, nil
}

// ParsePoolName accepts 1–63 plain characters.
func ParsePoolName(s string) (PoolName, error) {
	n, err := plain("storage pool", s, 63)
	return PoolName{n}, err
}

// ParseVolumeName accepts 1–63 plain characters.
func ParseVolumeName(s string) (VolumeName, error) {
	n, err := plain("storage volume", s, 63)
	return VolumeName{n}, err
}

// ParseMemberName accepts 1–63 plain characters.
func ParseMemberName(s string) (MemberName, error) {
	n, err := plain("member", s, 63)
	return MemberName{n}, err
}

// ParseDeviceName accepts 1–64 plain characters.
func ParseDeviceName(s string) (DeviceName, error) {
	n, err := plain("device", s, 64)
	return DeviceName{n}, err
}

// ParseAliasName accepts 1–255 bytes of plain components separated by single slashes, none of them
// starting with a dot.
func ParseAliasName(s string) (AliasName, error) {
	const kind = "image alias"
	if len(s) < 1 || len(s) > 255 {
		return AliasName{}, bad(kind, s, "Name must be 1-255 characters long")
	}
	if !aliasRE.MatchString(s) || s[0] == '.' || s[0] == '-' || strings.Contains(s, "/.") {
		return AliasName{}, bad(kind, s, "Name can only contain letters, digits and the characters _.:@+-/ and no part may start with a dot")
	}
	return AliasName{name{s}}, nil
}

// ParseFingerprint accepts 64 lower-case hexadecimal digits.
func ParseFingerprint(s string) (Fingerprint, error) {
	if !fingerprintRE.MatchString(s) {
		return Fingerprint{}, bad("fingerprint", s, "must be 64 lower case hexadecimal digits")
	}
	return Fingerprint{name{s}}, nil
}

// ParseFingerprintPrefix accepts 1–64 lower-case hexadecimal digits, what a user types for an image.
func ParseFingerprintPrefix(s string) (string, error) {
	if !prefixRE.MatchString(s) {
		return "", bad("fingerprint", s, "must be 1-64 lower case hexadecimal digits")
	}
	return s, nil
}

// Short returns the first twelve digits, the form that people see.
func (f Fingerprint) Short() string {
	if len(f.s) < 12 {
		return f.s
	}
	return f.s[:12]
}
