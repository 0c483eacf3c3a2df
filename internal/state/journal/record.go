package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shoal-project/shoal/internal/errs"
)

// An entry is one file of JSON lines: a header, then one line per event. A line that does not end in a newline was being
// written when the process died and does not count; zeros follow the last line.
const (
	formatVersion = 1
	suffix        = ".entry"
	maxFile       = 4 << 20
	// room is how many bytes of zeros follow the header: lines written over them do not change the file's size, so that syncing them need not
	// commit the file system's own journal.
	room = 4 << 10
)

type header struct {
	Format  int             `json:"format"`
	Seq     int64           `json:"seq"`
	Kind    string          `json:"kind"`
	Subject string          `json:"subject"`
	OnCrash Direction       `json:"on_crash"`
	Args    json.RawMessage `json:"args"`
	Time    time.Time       `json:"time"`
}

type event struct {
	Begin string `json:"begin,omitempty"` // this step is about to be done; those before it are done
	Fail  string `json:"fail,omitempty"`  // this step returned an error and left nothing behind
	Over  bool   `json:"over,omitempty"`
}

type record struct {
	header
	path   string
	begun  string // last step begun, "" before the first
	failed bool   // and it returned an error
	f      *os.File
	size   int64 // of the whole lines in the file
}

// create writes the header durably: content first, then the name.
func (r *record) create(dir string) error {
	b, err := json.Marshal(r.header)
	if err != nil {
		return err
	}
	r.path = filepath.Join(dir, fmt.Sprintf("%016d%s", r.Seq, suffix))
	if r.f, err = os.OpenFile(r.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	b = append(b, '\n')
	r.size = int64(len(b))
	if _, err = r.f.Write(append(b, make([]byte, room)...)); err == nil {
		err = r.f.Sync()
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		r.remove()
	}
	return err
}

func (r *record) append(line []byte) error {
	if r.f == nil {
		f, err := os.OpenFile(r.path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		r.f = f
	}
	line = append(line, '\n')
	_, err := r.f.WriteAt(line, r.size)
	if err == nil {
		err = syscall.Fdatasync(int(r.f.Fd()))
	}
	if err != nil { // half a line (full disk) must not swallow the next one
		return errors.Join(err, r.f.Truncate(r.size))
	}
	r.size += int64(len(line))
	return nil
}

func (r *record) event(e event) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return r.append(b)
}

func (r *record) begin(step string) error {
	if err := r.event(event{Begin: step}); err != nil {
		return err
	}
	r.begun, r.failed = step, false
	return nil
}

func (r *record) fail(step string) error {
	r.failed = true
	return r.event(event{Fail: step})
}

// over needs no room on a full disk: without it, taking the name away durably says the same.
func (r *record) over() error {
	err := r.event(event{Over: true})
	if err != nil && os.Remove(r.path) == nil {
		err = syncDir(filepath.Dir(r.path))
	}
	return err
}

func (r *record) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// remove deletes the file. Its name may come back after a power cut; the line "over" in it says that it is nothing then.
func (r *record) remove() {
	r.close()
	os.Remove(r.path)
}

// position returns the index of the step last begun, -1 when none was.
func (r *record) position(steps []Step) (int, error) {
	if r.begun == "" {
		return -1, nil
	}
	for i, s := range steps {
		if s.Name == r.begun {
			return i, nil
		}
	}
	return 0, errs.Unsupported("this build's %s has no step %q", r.Kind, r.begun)
}

// read returns nil without an error when the entry is over or never began.
func read(path string) (*record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	r, whole, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", filepath.Base(path), err)
	}
	if r == nil {
		return nil, nil
	}
	r.path, r.size = path, int64(whole)
	if len(bytes.Trim(b[whole:], "\x00")) > 0 { // cut off the torn line, the next one must start on its own
		if err := os.Truncate(path, int64(whole)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// parse reads an entry's content and returns how many bytes of it were whole lines.
func parse(b []byte) (r *record, whole int, err error) {
	if len(b) > maxFile {
		return nil, 0, errs.TooLarge("has more than %d bytes", maxFile)
	}
	rd := bufio.NewReader(bytes.NewReader(bytes.TrimRight(b, "\x00")))
	for {
		line, err := rd.ReadBytes('\n')
		if err != nil {
			return r, whole, nil // the end, or a torn line
		}
		whole += len(line)
		if r == nil {
			r = &record{}
			if err := json.Unmarshal(line, &r.header); err != nil {
				return nil, 0, errs.Invalid("header: %w", err)
			}
			if r.Format != formatVersion {
				return nil, 0, errs.Unsupported("format %d, this build knows %d", r.Format, formatVersion)
			}
			if r.OnCrash != UndoOnCrash && r.OnCrash != FinishOnCrash {
				return nil, 0, errs.Invalid("direction %q, allowed are %q and %q", r.OnCrash, UndoOnCrash, FinishOnCrash)
			}
			continue
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, 0, errs.Invalid("line: %w", err)
		}
		switch {
		case e.Over:
			return nil, whole, nil
		case e.Begin != "":
			r.begun, r.failed = e.Begin, false
		case e.Fail != "":
			r.failed = e.Fail == r.begun
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
