package instance

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/shoal-project/shoal/internal/fsroot"
)

// openDirs makes and opens the directories of this room below Deps.Dir. Names of instances are name types, ids are made
// here, so every component is one path element.
//
//	instances/      0711, the guest's root user must be able to pass
//	instances/<id>/ 0700, the driver's own
//	logs/<name>/    0700, lxc.log, console.log, shim.log, exec_<uuid>.stdout
func (s *Service) openDirs() error {
	for dir, mode := range map[string]os.FileMode{"instances": 0o711, "logs": 0o700} {
		if err := os.MkdirAll(filepath.Join(s.d.Dir, dir), mode); err != nil {
			return fmt.Errorf("make the directory of %s: %w", dir, fsroot.Classify(err))
		}
	}
	var err error
	if s.dir, err = fsroot.Open(s.d.Dir); err != nil {
		return fmt.Errorf("open the state directory: %w", err)
	}
	return errors.Join(s.dir.Chmod("instances", 0o711), s.dir.Chmod("logs", 0o700))
}

// runName and logName are names below the state directory.
func runName(id string) string             { return path.Join("instances", id) }
func logName(r ref, file ...string) string { return path.Join("logs", r.dirName(), path.Join(file...)) }

// runDir and logDir are for the driver, which gets paths.
func (s *Service) runDir(id string) string { return filepath.Join(s.d.Dir, runName(id)) }
func (s *Service) logDir(r ref) string     { return filepath.Join(s.d.Dir, logName(r)) }

// ensureDirs makes what an instance needs; idempotent.
func (s *Service) ensureDirs(id string, r ref) error {
	for _, dir := range []string{runName(id), logName(r)} {
		if err := s.dir.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the directories of the instance: %w", fsroot.Classify(err))
		}
	}
	return nil
}

func (s *Service) removeDirs(id string, r ref) error {
	for _, dir := range []string{runName(id), logName(r)} {
		if err := s.dir.RemoveTree(dir); err != nil {
			return fmt.Errorf("remove the directories of the instance: %w", err)
		}
	}
	return nil
}

// renameLogs is idempotent: nil when there is nothing under the old name.
func (s *Service) renameLogs(from, to ref) error {
	err := s.dir.Rename(logName(from), logName(to))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fsroot.Classify(err)
}
