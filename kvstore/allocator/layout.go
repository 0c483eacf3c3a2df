package allocator

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
)

// ID is an allocated number; 0 is none.
type ID uint64

// Limits of what comes from outside.
const (
	MaxKey  = 4096 // bytes of a key
	MaxNode = 256  // bytes of a node's name
	// longer escaped keys are kept under their hash: the path stays short, the record has the whole key
	maxEscaped = 512
)

// layout makes the paths of the records. Stable: what is stored under them outlives every version of this program.
//
//	<prefix>keys/<escaped key>         "<id> <key>"   one per key, no lease
//	<prefix>ids/<id>                   "<key>"        written in the same transactions as the former, so both have one ModRevision
//	<prefix>refs/<escaped key>/<node>  "<id>"         the node uses the id; under a lease of the node's
type layout struct{ prefix, node string }

func newLayout(prefix, node string) (layout, error) {
	switch {
	case prefix == "" || !strings.HasSuffix(prefix, "/"):
		return layout{}, errs.Invalid("allocator prefix %q: it must end with a slash", prefix)
	case node == "" || len(node) > MaxNode:
		return layout{}, errs.Invalid("node name %.40q: 1 to %d bytes are allowed", node, MaxNode)
	}
	return layout{prefix, escape(node)}, nil
}

func (l layout) key(key string) string  { return l.prefix + "keys/" + escape(key) }
func (l layout) id(id ID) string        { return l.prefix + "ids/" + strconv.FormatUint(uint64(id), 10) }
func (l layout) refs(key string) string { return l.prefix + "refs/" + escape(key) + "/" }
func (l layout) ref(key string) string  { return l.refs(key) + l.node }

// CheckKey reports a key that cannot be allocated.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return errs.Invalid("key %.40q: 1 to %d bytes are allowed, it has %d", key, MaxKey, len(key))
	}
	return nil
}

// escape makes one part of a path of any bytes: no slash is left, so no key's path is the beginning of another's, and two
// keys never have the same.
func escape(s string) string {
	const hexDigits = "0123456789ABCDEF"
	n := 0
	for i := range len(s) {
		if !plain(s[i]) {
			n++
		}
	}
	if len(s)+2*n > maxEscaped {
		sum := sha256.Sum256([]byte(s))
		return "%h" + hex.EncodeToString(sum[:]) // no escape begins like that
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.~:;=,@+", c) >= 0
}

func recordValue(key string, id ID) []byte {
	b := make([]byte, 0, len(key)+21)
	b = strconv.AppendUint(b, uint64(id), 10)
	b = append(b, ' ')
	return append(b, key...)
}

// parseRecord reads what stands at a path below keys/.
func (l layout) parseRecord(path string, value []byte) (key string, id ID, err error) {
	num, key, ok := strings.Cut(string(value), " ")
	if !ok {
		return "", 0, fmt.Errorf("record %q: %.40q has no id and key", path, value)
	}
	if id, err = parseID(num); err != nil {
		return "", 0, fmt.Errorf("record %q: %w", path, err)
	}
	if err := CheckKey(key); err != nil {
		return "", 0, fmt.Errorf("record %q: %w", path, err)
	}
	if l.key(key) != path {
		return "", 0, fmt.Errorf("record %q is of another key, %.40q", path, key)
	}
	return key, id, nil
}

// parseID accepts an id only in the form in which it is written.
func parseID(s string) (ID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("%.40q is no id: a number from 1 on is expected", s)
	}
	return ID(n), nil
}
