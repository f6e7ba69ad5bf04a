//go:build unix

package process

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// absolute is a path of the child's as we reach it.
func (c *Command) absolute(path string) string {
	if filepath.IsAbs(path) || c.Dir == "" {
		return path
	}
	return filepath.Join(c.Dir, path)
}

// warm reads the beginning of a program, so that a slow disk keeps this goroutine waiting
// and not the fork after it, which holds syscall.ForkLock and during which Go's runtime
// cannot stop for its garbage collector.
func warm(c *Command, path string) {
	fd, err := openRetry(c.absolute(path), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK)
	if err != nil {
		return // exec says why
	}
	defer closeAll(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		_, _ = unix.Pread(fd, make([]byte, 4096), 0) // what exec reads
	}
}

// explain says what fork and exec failed at, of which they return only the errno, and
// what to do about it.
func (c *Command) explain(path string, err error) *StartError {
	e := &StartError{Op: "exec", Path: path, Dir: c.Dir, Err: err}
	who := "weir"
	if c.Credential != nil {
		who = fmt.Sprintf("user %d", c.Credential.UID)
	}
	if c.Dir != "" && c.dirFails(e, who) {
		return e
	}
	program := c.absolute(path)
	st, statErr := os.Stat(program)
	switch {
	case errors.Is(err, syscall.EPERM) && c.Credential != nil:
		e.Op, e.Hint = "user", fmt.Sprintf("to run it as user %d takes root's privileges (CAP_SETUID and CAP_SETGID)", c.Credential.UID)
	case errors.Is(err, syscall.EPERM) && len(c.Limits) > 0:
		e.Hint = "its limits are set by tracing it, which may be forbidden here (kernel.yama.ptrace_scope, seccomp)"
	case errors.Is(err, syscall.EPERM):
		e.Hint = "the system forbids it: look at its file attributes, at set-user-ID bits and at security modules"
	case errors.Is(err, syscall.EACCES):
		e.Hint = whyNoAccess(program, st, statErr, c.Credential, who)
	case errors.Is(err, syscall.ENOENT) && statErr == nil:
		e.Hint = "the file is there, but " + interpreter(program) + " is not"
	case errors.Is(err, syscall.ENOENT):
		e.Hint = "there is no such file; is it installed?"
	case errors.Is(err, syscall.ENOTDIR):
		e.Hint = "a part of its path is a file"
	case errors.Is(err, syscall.E2BIG):
		e.Hint = "its arguments and environment are longer than the system allows; pass less, or use its input"
	case errors.Is(err, syscall.ETXTBSY):
		e.Hint = "it is open for writing; try again when that is done"
	case errors.Is(err, syscall.EBADF):
		e.Hint = "a descriptor that it was to inherit is not open"
	default:
		if e.Hint = hintFor(err); e.Hint != "" {
			e.Op = "fork"
		}
	}
	return e
}

// dirFails reports whether it was the directory, and says so in e.
func (c *Command) dirFails(e *StartError, who string) bool {
	st, err := os.Stat(c.Dir)
	switch {
	case err != nil && errors.Is(err, e.Err):
		e.Hint = "the directory does not exist: name one that does"
		if errors.Is(err, fs.ErrPermission) {
			e.Hint = who + " may not search a directory above it"
		}
	case err == nil && !st.IsDir() && errors.Is(e.Err, syscall.ENOTDIR):
		e.Hint = "that is not a directory"
	case err == nil && st.IsDir() && errors.Is(e.Err, syscall.EACCES):
		closed := unsearchable(c.Dir, c.Credential)
		if closed == "" {
			return false
		}
		e.Hint = who + " may not enter " + closed + " (chmod +x)"
	default:
		return false
	}
	e.Op = "chdir"
	return true
}

// whyNoAccess says what is in the way of a program.
func whyNoAccess(program string, st fs.FileInfo, statErr error, as *Credential, who string) string {
	switch closed := unsearchable(filepath.Dir(program), as); {
	case closed != "":
		return who + " may not enter " + closed
	case statErr != nil:
		return who + " may not reach it"
	case st.IsDir():
		return "it is a directory"
	case !st.Mode().IsRegular():
		return "it is not a file"
	case !may(st, as):
		return who + " may not execute it (chmod +x)"
	}
	return "it, or its interpreter, may not be executed: look for a noexec mount, and for the permissions of " + interpreter(program)
}

// unsearchable is the first directory on the way to dir, itself included, that a user may
// not enter; "": it is not to be found by permission bits.
func unsearchable(dir string, as *Credential) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	way := []string{dir}
	for d := filepath.Dir(dir); d != way[len(way)-1]; d = filepath.Dir(d) {
		way = append(way, d)
	}
	for _, d := range slices.Backward(way) {
		if st, err := os.Stat(d); err != nil || !may(st, as) {
			return d
		}
	}
	return ""
}

// may reports whether the permission bits let a user execute a file or enter a directory;
// nil is who we are.
func may(st fs.FileInfo, as *Credential) bool {
	own, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	uid, groups := uint32(os.Geteuid()), []uint32{uint32(os.Getegid())}
	if as != nil {
		uid, groups = as.UID, append([]uint32{as.GID}, as.Groups...)
	} else if more, err := os.Getgroups(); err == nil {
		for _, g := range more {
			groups = append(groups, uint32(g))
		}
	}
	mode := st.Mode().Perm()
	switch {
	case uid == 0:
		return st.IsDir() || mode&0o111 != 0
	case own.Uid == uid:
		return mode&0o100 != 0
	case slices.Contains(groups, own.Gid):
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// interpreter names what the kernel runs a program with.
func interpreter(program string) string {
	f, err := os.OpenFile(program, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		defer func() { _ = f.Close() }() // it was only read
		line, _ := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n')
		if rest, is := strings.CutPrefix(line, "#!"); is {
			if words := strings.Fields(rest); len(words) > 0 {
				return "the interpreter of its first line, " + words[0] + ","
			}
		}
	}
	return "its dynamic loader"
}
