package endpoint

import (
	"fmt"
	"io/fs"
	"os"
)

// OutputFileError reports a file that a recording must not be written to,
// because other data would be lost or others could read the recording.
type OutputFileError struct {
	Path    string
	Problem OutputFileProblem
	Target  string // for a Link: where it leads
}

// OutputFileProblem says why a recording is not written to a file.
type OutputFileProblem string

// The problems.
const (
	Link       OutputFileProblem = "a symbolic link"
	SecondName OutputFileProblem = "a file that has another name too (a hard link)"
	OtherOwner OutputFileProblem = "another user's file"
	InUse      OutputFileProblem = "a file that another recording is being written to"
)

func (e *OutputFileError) Error() string {
	if e.Problem == Link {
		return fmt.Sprintf("%s is %s to %s", e.Path, e.Problem, e.Target)
	}
	return fmt.Sprintf("%s is %s", e.Path, e.Problem)
}

// openLog opens a file for +log, to append to: its content and permissions stay
// as they are. A new file is readable by its owner alone.
func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

// openRecording opens a file for +record, for this user alone, and empties it
// once it is known to belong to no one else: it is not the target of a link,
// has no second name and no other owner, and no other recording is being
// written to it, by this process or another. Anything but a regular file, such
// as /dev/full, is written to as it is. The file stays locked until it is
// closed.
func openRecording(path string) (*os.File, error) {
	refuse := func(p OutputFileProblem) error { return &OutputFileError{Path: path, Problem: p} }
	nofollow := noFollow
	if at, err := os.Lstat(path); err == nil && at.Mode()&fs.ModeSymlink != 0 {
		// A link such as /dev/stdout leads to something that cannot be emptied.
		if to, err := os.Stat(path); err != nil || to.Mode().IsRegular() {
			target, _ := os.Readlink(path) //nolint:errcheck // it is only shown
			return nil, &OutputFileError{Path: path, Problem: Link, Target: target}
		}
		nofollow = 0
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|nofollow, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		return f, nil
	case nofollow == 0 && noFollow != 0:
		err = refuse(Link) // it was replaced meanwhile
	default:
		if p := othersFile(st); p != "" {
			err = refuse(p)
			break
		}
		if !lockFile(f) {
			err = refuse(InUse)
			break
		}
		if st.Mode().Perm()&0o077 != 0 && noFollow != 0 {
			err = f.Chmod(0o600)
		}
		if err == nil {
			err = f.Truncate(0)
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written to it
		return nil, err
	}
	return f, nil
}
