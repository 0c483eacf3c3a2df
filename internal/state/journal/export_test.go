package journal

// OnPoint has f called at each point where a crash makes a difference.
func (j *Journal) OnPoint(f func(string)) { j.point = f }

// ParseBytes reads an entry's content for the fuzz test.
func ParseBytes(b []byte) (ok bool, whole int, err error) {
	r, whole, err := parse(b)
	return r != nil, whole, err
}
