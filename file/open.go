package file

import (
	"errors"
	"io/fs"
	"os"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
)

// ErrNoExecutor is the failure of Open without an executor.
var ErrNoExecutor = errors.New("file: reading and writing files blocks, and there is no executor for it (executor.New)")

// Config says which file a transport is on, and how that is used. At least one of Read
// and Write is set, or something that implies it.
type Config struct {
	Path string
	// Read has the transport deliver what the file has, and then the end of the stream.
	Read bool
	// Follow has it wait for more instead. A file that has become shorter than what was
	// read of it is read from its beginning, and so is another one that has taken its name,
	// once all of this one was read, unless the transport writes too. It implies Read.
	Follow bool
	// Write has what is written to the transport replace what the file has. Without it
	// what is written is dropped.
	Write bool
	// Append has it stand at the end of the file, wherever that is by then, also if
	// others write there. It implies Write.
	Append bool
	// Create makes the file if there is none, with the permission bits Mode, of which
	// the system takes away those of the umask; 0: 0666. It implies Write.
	Create bool
	Mode   fs.FileMode
	// Truncate empties the file first. It implies Write. The file is empty once it is
	// open, also if the transport is refused or canceled, or Open fails after that.
	Truncate bool
	// At is where reading and writing begin, in bytes. Each has a position of its own.
	At int64
}

func (c *Config) reads() bool  { return c.Read || c.Follow }
func (c *Config) writes() bool { return c.Write || c.Append || c.Create || c.Truncate }

// check finds what is wrong before anything is opened.
func (c *Config) check() error {
	switch {
	case !c.reads() && !c.writes():
		return &fs.PathError{Op: "open", Path: c.Path, Err: errors.New("it would be neither read nor written")}
	case c.At < 0:
		return &fs.PathError{Op: "open", Path: c.Path, Err: errors.New("a position below 0")}
	}
	return nil
}

// NotFileError is the failure of Open for something that is no file and no disk: a
// directory, a named pipe, a socket, a device.
type NotFileError struct {
	Path string
	Mode fs.FileMode // its type
}

func (e *NotFileError) Error() string { return "open " + e.Path + ": " + e.What() }

// What says what it is, without its name.
func (e *NotFileError) What() string {
	what := "a device"
	switch t := e.Mode.Type(); {
	case t == fs.ModeDir:
		what = "a directory"
	case t == fs.ModeNamedPipe:
		what = "a named pipe"
	case t == fs.ModeSocket:
		what = "a socket"
	}
	return "it is " + what + ", not a file"
}

// Open opens a file on a goroutine of e, makes a transport of it and has that once its
// ConnectionMade was called. s must be made of a *weir.Loop or a *weir.Tenant, to which the
// transport then belongs. The failure is an *fs.PathError, a *NotFileError, ErrNoExecutor, or
// e's; it is weir.ErrClosed if f refused the transport, and the *weir.TenantError if the tenant
// is closed. Canceling it before it has settled leaves nothing open, nor does the end of the
// tenant; a file that it has created or truncated meanwhile stays so. Open belongs to the loop's
// goroutine. c is not used after it has returned. Of the options those of weir.Loop.Carry have
// an effect.
//
// The transport of a file that is only read ends with the file: its ConnectionLost
// follows the end of the stream. One that is only written ends with WriteEOF or Close,
// when all of it is in the file; an error of that, or of closing the file, is the reason
// that ConnectionLost gets. What is written is not synced to the disk.
func Open(s *future.Scheduler, e *executor.Executor, c *Config, f weir.Factory, opts ...weir.StreamOption) *future.Future[weir.Transport] {
	done, p := future.New[weir.Transport](s)
	l, t, err := loopOf(s)
	switch {
	case err != nil:
	case e == nil:
		err = ErrNoExecutor
	default:
		err = c.check()
	}
	if err != nil {
		p.Reject(err)
		return done
	}
	k := &conn{s: s, e: e, l: l, c: *c, readAt: c.At, writeAt: c.At}
	opts = inside(t, opts)
	canceled := false
	p.OnCancel(func() { canceled = true })
	leave := func() {}
	if t != nil {
		leave = t.OnClose(func(err error) { p.Reject(err) })
	}
	opened := func(file *os.File, err error) {
		leave()
		if err == nil {
			k.f = file
			if err = future.ErrCanceled; canceled {
				k.letGo()
			} else {
				err = k.begin(f, opts)
			}
		}
		if err != nil {
			p.Reject(err)
			return
		}
		p.Resolve(k.feed.Transport())
	}
	post := func(file *os.File, err error) {
		closed := func() {
			if file != nil {
				executor.Ensure(e, s, func() { _ = file.Close() }) // nothing was written
			}
		}
		if _, gone := l.PostOr(func() { opened(file, err) }, func() { closed(); p.Reject(weir.ErrLoopClosed) }); gone != nil {
			closed()
		}
	}
	if err := executor.Do(e, s, func() { post(k.c.open()) }, func(err error) { post(nil, err) }); err != nil {
		leave()
		p.Reject(err)
	}
	return done
}

// loopOf is the loop that s is made of, and its tenant, if it is made of one that is open.
func loopOf(s *future.Scheduler) (*weir.Loop, *weir.Tenant, error) {
	switch x := s.Loop().(type) {
	case *weir.Loop:
		return x, nil, nil
	case *weir.Tenant:
		return x.Loop(), x, x.Closed()
	}
	return nil, nil, errors.New("file: the scheduler was not made of a *weir.Loop or a *weir.Tenant: use future.On")
}

// inside are options of what belongs to t, unless they name another tenant; nil: none.
func inside(t *weir.Tenant, opts []weir.StreamOption) []weir.StreamOption {
	if t == nil {
		return opts
	}
	return append([]weir.StreamOption{weir.WithTenant(t)}, opts...)
}

// open runs on a goroutine of the executor.
func (c *Config) open() (*os.File, error) {
	// A device may do something when it is opened, and a pipe waits for its other end.
	if st, err := os.Stat(c.Path); err == nil && !isFile(st.Mode()) {
		return nil, &NotFileError{Path: c.Path, Mode: st.Mode()}
	}
	how := os.O_RDONLY
	switch {
	case c.reads() && c.writes():
		how = os.O_RDWR
	case c.writes():
		how = os.O_WRONLY
	}
	for _, o := range []struct {
		on   bool
		flag int
	}{{c.Append, os.O_APPEND}, {c.Create, os.O_CREATE}, {c.Truncate, os.O_TRUNC}} {
		if o.on {
			how |= o.flag
		}
	}
	mode := c.Mode.Perm()
	if mode == 0 {
		mode = 0o666
	}
	f, err := os.OpenFile(c.Path, how|openQuick, mode)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !isFile(st.Mode()) {
		_ = f.Close() // nothing was written
		if err == nil {
			err = &NotFileError{Path: c.Path, Mode: st.Mode()} // it took the file's place
		}
		return nil, err
	}
	return f, nil
}

// isFile reports whether a mode is that of a file or a disk.
func isFile(m fs.FileMode) bool {
	return m.IsRegular() || m.Type() == fs.ModeDevice
}
