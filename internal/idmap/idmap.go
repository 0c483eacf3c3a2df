// Package idmap decides which user and group ids of the host an instance gets.
//
// The host lends the daemon one [Range] for users and groups alike. It is cut into blocks of equal size, one per
// unprivileged instance, so that a process that escapes from one instance has no right on the files of another. The
// package computes only: which blocks are taken is the caller's knowledge, and writing a choice down is its task.
//
// Blocks are claimed in a transaction of the state tables; [Choose] is a pure function over what is used, so two
// members of one host, or a retry, come to the same answer from the same facts.
package idmap

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/shoal-project/shoal/internal/errs"
)

// BlockSize is the number of ids of an instance: the whole 16-bit space, which distributions expect.
const BlockSize = 65536

// Range is a run of host ids: Base, Base+1, …, Base+Size-1. The zero value is empty.
type Range struct {
	Base uint32
	Size uint32
}

// DefaultRange is used where the host says nothing about root's subordinate ids, as LXD does.
func DefaultRange() Range { return Range{Base: 1_000_000, Size: 1_000_000_000} }

// IsZero reports whether r is empty.
func (r Range) IsZero() bool { return r.Size == 0 }

// Contains reports whether all of o lies in r.
func (r Range) Contains(o Range) bool {
	return o.Base >= r.Base && uint64(o.Base)+uint64(o.Size) <= uint64(r.Base)+uint64(r.Size)
}

// Overlaps reports whether r and o share an id.
func (r Range) Overlaps(o Range) bool {
	return uint64(r.Base) < uint64(o.Base)+uint64(o.Size) && uint64(o.Base) < uint64(r.Base)+uint64(r.Size)
}

// intersect returns what r and o share.
func (r Range) intersect(o Range) Range {
	base := max(r.Base, o.Base)
	end := min(uint64(r.Base)+uint64(r.Size), uint64(o.Base)+uint64(o.Size))
	if end <= uint64(base) {
		return Range{}
	}
	return Range{Base: base, Size: uint32(end - uint64(base))}
}

// String gives "base:size".
func (r Range) String() string { return fmt.Sprintf("%d:%d", r.Base, r.Size) }

// maxFile bounds what is read of a subordinate id file; a line of a real one has some thirty bytes.
const maxFile = 4 << 20

// ParseSubIDs reads a file in the format of /etc/subuid and returns the ranges of a user, given by name or number. Lines
// are "user:base:count"; empty lines and lines that begin with "#" are skipped. A line that is wrong is an error that
// gives its number, whoever's it is: a file that cannot be read as a whole is not to be trusted in parts.
func ParseSubIDs(r io.Reader, user string, uid uint32) ([]Range, error) {
	limited := &io.LimitedReader{R: r, N: maxFile + 1}
	lines := bufio.NewScanner(limited)
	var out []Range
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		owner, rng, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if owner == user || owner == strconv.FormatUint(uint64(uid), 10) {
			out = append(out, rng)
		}
	}
	if limited.N <= 0 {
		return nil, errs.TooLarge("more than %d bytes", maxFile)
	}
	if err := lines.Err(); err != nil {
		return nil, errs.Classify(errs.InvalidInput, err)
	}
	return out, nil
}

func parseLine(line string) (string, Range, error) {
	f := strings.Split(line, ":")
	if len(f) != 3 || f[0] == "" {
		return "", Range{}, errs.Invalid("%.80q is not user:base:count", line)
	}
	base, err := strconv.ParseUint(f[1], 10, 32)
	if err != nil {
		return "", Range{}, errs.Invalid("base %.40q is not a number below 2^32", f[1])
	}
	size, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil || size == 0 {
		return "", Range{}, errs.Invalid("count %.40q is not a number from 1 to 2^32-1", f[2])
	}
	// The id 2^32-1 means "no id" to the kernel.
	if base+size > math.MaxUint32 {
		return "", Range{}, errs.Invalid("%d ids from %d on go beyond 2^32-2", size, base)
	}
	return f[0], Range{Base: uint32(base), Size: uint32(size)}, nil
}

// HostRange picks the range for instances from root's subordinate user and group ids: the largest that both lists
// have. No entry at all means [DefaultRange]. Ids below 65536, which the host's own users have, are never lent.
// errs.Unsupported when there are entries but not one block's worth in common.
func HostRange(uids, gids []Range) (Range, error) {
	if len(uids) == 0 && len(gids) == 0 {
		return DefaultRange(), nil
	}
	lendable := Range{Base: 65536, Size: math.MaxUint32 - 65536}
	var best Range
	for _, u := range uids {
		for _, g := range gids {
			if both := u.intersect(g).intersect(lendable); both.Size > best.Size {
				best = both
			}
		}
	}
	if best.Size < BlockSize {
		return Range{}, errs.Unsupported("root's entries in /etc/subuid and /etc/subgid have no %d ids in common; add a line such as \"root:%d:%d\" to both, or remove root's lines",
			BlockSize, DefaultRange().Base, DefaultRange().Size)
	}
	return best, nil
}

// Blocks returns how many blocks of size ids r has room for; 0 when size is 0.
func Blocks(r Range, size uint32) int {
	if size == 0 {
		return 0
	}
	return int(r.Size / size)
}

// Block returns the n-th block of size ids of r, n counted from 0; false when there is none.
func Block(r Range, size uint32, n int) (Range, bool) {
	if n < 0 || n >= Blocks(r, size) {
		return Range{}, false
	}
	return Range{Base: r.Base + uint32(n)*size, Size: size}, true
}

// Choose returns the lowest block of size ids of r that overlaps none of used, which may have any order, any sizes and
// may lie elsewhere. errs.NoSpace when all are taken.
func Choose(r Range, size uint32, used []Range) (Range, error) {
	taken := make(map[int]bool, len(used))
	for _, u := range used {
		in := u.intersect(r)
		if in.IsZero() || size == 0 {
			continue
		}
		first := int((in.Base - r.Base) / size)
		last := int((uint64(in.Base) - uint64(r.Base) + uint64(in.Size) - 1) / uint64(size))
		for n := first; n <= last && n < Blocks(r, size); n++ {
			taken[n] = true
		}
	}
	for n := range Blocks(r, size) {
		if !taken[n] {
			b, _ := Block(r, size, n)
			return b, nil
		}
	}
	return Range{}, errs.NoSpace("all %d blocks of %d ids in %s are in use", Blocks(r, size), size, r)
}
