package instance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"syscall"

	"github.com/shoal-project/shoal/api"
	"github.com/shoal-project/shoal/internal/errs"
	"github.com/shoal-project/shoal/internal/fsroot"
)

// storyFile is what happened to an instance, line by line; `info --show-log` asks for it by this name.
const (
	storyFile = "lxc.log"
	maxStory  = 256 << 10 // bytes, then the file becomes lxc.log.old
	maxLog    = 1 << 20   // bytes that a client gets of each file of the story
)

// logFiles are the names that a client may ask for; anything else is not found, whatever lies in the directory.
var (
	logFiles  = regexp.MustCompile(`^(lxc\.log|lxc\.log\.old|console\.log|runtime\.log|shim\.log|exec_[0-9a-f-]{36}\.(stdout|stderr))$`)
	execFiles = regexp.MustCompile(`^exec_[0-9a-f-]{36}\.(stdout|stderr)$`)
)

// tell adds a line to an instance's story. It never fails: what cannot be written is in the daemon's log.
func (s *Service) tell(r ref, level slog.Level, msg string, args ...any) {
	name := logName(r, storyFile)
	if st, err := s.dir.Lstat(name); err == nil && st.Size() > maxStory {
		_ = s.dir.Rename(name, name+".old")
	}
	f, err := s.dir.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // being deleted
			s.log.Warn("log of an instance cannot be written", "instance", r.String(), "err", err)
		}
		return
	}
	defer f.Close()
	slog.New(slog.NewTextHandler(f, nil)).Log(context.Background(), level, msg, args...)
}

// Logs lists the names of the instance's log files, sorted.
func (s *Service) Logs(project api.ProjectName, name string) ([]string, error) {
	e, err := s.find(project, name)
	if err != nil {
		return nil, err
	}
	out := []string{}
	dir, err := s.dir.Open(logName(e.name()))
	if err == nil {
		defer dir.Close()
		var list []fs.DirEntry
		list, err = dir.ReadDir(-1)
		for _, f := range list {
			if logFiles.MatchString(f.Name()) && f.Type().IsRegular() {
				out = append(out, f.Name())
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fsroot.Classify(err)
	}
	if !slices.Contains(out, storyFile) {
		out = append(out, storyFile)
	}
	slices.Sort(out)
	return out, nil
}

// Log opens a log file; NotFound when there is none. lxc.log is the story of the instance and what the runtime and its shim had to
// say at the last start.
func (s *Service) Log(project api.ProjectName, name, file string) (io.ReadCloser, error) {
	e, err := s.find(project, name)
	if err != nil {
		return nil, err
	}
	if !logFiles.MatchString(file) {
		return nil, errs.NotFound("Log file %.60q not found", file)
	}
	if file != storyFile {
		f, err := s.openLog(e.name(), file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errs.NotFound("Log file %.60q not found", file)
		}
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	var story bytes.Buffer
	for _, part := range []string{storyFile, "shim.log", "runtime.log"} {
		b, err := s.lastOf(e.name(), part)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if len(b) > 0 && part != storyFile {
			fmt.Fprintf(&story, "\n%s of the last start:\n", part)
		}
		story.Write(b)
	}
	return io.NopCloser(&story), nil
}

func (s *Service) openLog(r ref, file string) (*os.File, error) {
	f, err := s.dir.OpenFile(logName(r, file), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fsroot.Classify(err)
	}
	return f, nil
}

// lastOf reads the end of a log.
func (s *Service) lastOf(r ref, file string) ([]byte, error) {
	f, err := s.openLog(r, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-maxLog), maxLog))
}

// DeleteLog removes recorded output of a command; the other logs belong to the server.
func (s *Service) DeleteLog(project api.ProjectName, name, file string) error {
	e, err := s.find(project, name)
	if err != nil {
		return err
	}
	if !execFiles.MatchString(file) {
		return errs.Invalid("only recorded output (exec_….stdout and .stderr) can be deleted")
	}
	err = s.dir.Remove(logName(e.name(), file))
	if errors.Is(err, fs.ErrNotExist) {
		return errs.NotFound("Log file %q not found", file)
	}
	return fsroot.Classify(err)
}

// Metadata returns the metadata of the image that the instance was made from.
func (s *Service) Metadata(ctx context.Context, project api.ProjectName, name string) (*api.ImageMetadata, error) {
	item, err := s.item(project, name)
	if err != nil {
		return nil, err
	}
	fp, err := api.ParseFingerprint(item.Value.Image)
	if err != nil {
		return nil, errs.NotFound("the instance was made without an image")
	}
	return s.d.Images.Metadata(ctx, fp)
}
