package process

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
)

// filesMost is how many descriptors of a child Files can name: 0 to 1023.
const filesMost = 1024

// filesClosed bounds the descriptors that are closed in the child because Files
// does not name them, whether they are close-on-exec or not.
const filesClosed = 256

// Command says what to start, and how. Start copies it, with its slices and its map, before
// it returns, and all of it stays the caller's.
type Command struct {
	// Path is the program. Without a slash it is looked for in the absolute
	// directories of PATH, taken from Env if Env has one; with a slash it is used as it
	// is, relative to Dir.
	Path string
	// Args is argv, with the program's name first; nil: Path alone.
	Args []string
	// Dir is the program's working directory; "" is ours.
	Dir string
	// Env is its environment, of entries "KEY=value"; the last of equal keys counts. nil
	// is ours.
	Env []string
	// Files are the child's descriptors, by their numbers from 0 to 1023.
	// If 0, 1 or 2 is not in it, that one is the null device. Others below 256 are
	// closed; above that, as with any exec, those that are close-on-exec are, which
	// includes all that weir opens.
	Files map[int]File
	// Credential is the user that it runs as; nil is ours.
	Credential *Credential
	// Session starts it in a session of its own, without a controlling terminal. A
	// Terminal among Files implies it, and controls that session.
	Session bool
	// Group starts it in a process group of its own; Session implies it. Stop and
	// SignalGroup then reach what it has started too, except for what has left the group.
	Group bool
	// Limits are its resource limits, set before its first instruction (Linux). The
	// child is traced until they are set, so it gains no privileges from a
	// set-user-ID bit.
	Limits []Limit
	// DeathSignal is sent to the child when we die, however that happens (Linux);
	// 0: none. The kernel sends it when the thread that started the child ends, so
	// each such child keeps a goroutine and its thread until it has exited.
	DeathSignal syscall.Signal
	// AtClose says what happens to the child when the loop, or its tenant, is closed.
	AtClose AtClose
	// Tenant is what the child and its streams belong to; nil is the tenant that Start's
	// Scheduler is made of, or none.
	Tenant *weir.Tenant

	goroutine bool // wait on a goroutine although the kernel has pidfds, for tests
	noPidfd   bool // as if fork had returned no pidfd, for tests
}

// Credential is the user that a program runs as. Changing it takes privileges.
type Credential struct {
	UID, GID uint32
	Groups   []uint32 // the supplementary groups: no others
}

// Limit is a resource limit, as setrlimit(2) has it: RLIMIT_CPU in seconds, RLIMIT_AS
// in bytes and so on.
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// AtClose says what happens to a child when its loop or its tenant is closed.
type AtClose uint8

const (
	// End kills the child, and its process group if it has one of its own.
	End AtClose = iota
	// Leave lets it run. A goroutine, blocked in the kernel, reaps it.
	Leave
)

// Size is the size of a terminal, in characters.
type Size struct{ Rows, Columns uint16 }

// Stream is a transport between us and a child. Its File goes into Command.Files,
// under one number or several; each Start makes a transport of its own.
type Stream struct {
	kind    streamKind
	size    Size
	noEcho  bool
	factory weir.Factory
	opts    []weir.StreamOption
}

type streamKind uint8

const (
	pipes streamKind = iota
	socket
	terminal
)

// Pipes is a transport over one pipe for each direction that is used: In is what the
// child reads, Out what it writes. Its WriteEOF closes the one and leaves the other. A
// child that closes its input may continue with its output: see
// weir.WithSeparateEnds.
// f runs on the loop's goroutine before Start's future settles, as for all streams.
func Pipes(f weir.Factory, opts ...weir.StreamOption) *Stream {
	return &Stream{kind: pipes, factory: f, opts: opts}
}

// Socket is a transport over a pair of UNIX sockets. In and Out are the same.
func Socket(f weir.Factory, opts ...weir.StreamOption) *Stream {
	return &Stream{kind: socket, factory: f, opts: opts}
}

// Terminal is a transport over a new pseudo-terminal, which controls the child's
// session. In and Out are the same. Its end of stream comes when no process has the
// terminal open. It has no WriteEOF. A zero size stays unset.
func Terminal(size Size, f weir.Factory, opts ...weir.StreamOption) *Stream {
	return &Stream{kind: terminal, size: size, factory: f, opts: opts}
}

// NoEcho has a Terminal not echo what is sent to it, from the beginning; the child may change
// that. It is to be called before Start, and has no effect on other streams.
func (s *Stream) NoEcho() { s.noEcho = true }

// In is the end that the child reads.
func (s *Stream) In() File { return File{how: fromStream, stream: s} }

// Out is the end that the child writes.
func (s *Stream) Out() File { return File{how: fromStream, stream: s, out: true} }

// File describes a descriptor of a child. The zero File is Null.
type File struct {
	how    source
	fd     int
	stream *Stream
	out    bool
}

type source uint8

const (
	fromNull source = iota
	fromOurs
	fromStream
	fromNothing
)

// Null is the null device.
func Null() File { return File{} }

// Closed is no descriptor at all.
func Closed() File { return File{how: fromNothing} }

// Inherit is descriptor fd of ours, which stays ours and must stay open until Start's
// future has settled. Numbers may be exchanged: the child's 3 may be our 4 and its 4
// our 3.
func Inherit(fd int) File { return File{how: fromOurs, fd: fd} }

// StartError says why a program could not be started. Nothing of it is left behind.
type StartError struct {
	// Op is what failed: "find", "chdir", "user", "pipe", "socketpair", "terminal", "fork",
	// "exec", "limit", "attach", "descriptors", "executor". What fork and exec have no memory,
	// process or descriptor for is "fork".
	Op    string
	Path  string   // the program, as far as it was found
	Dir   string   // of "chdir"
	Tried []string // the directories of "find"
	Err   error    // an errno, mostly
	Hint  string   // what is in the way, or what to do about it; may be ""
}

func (e *StartError) Error() string {
	text := fmt.Sprintf("cannot start %s: %s: %v", e.Path, e.Op, e.Err)
	switch {
	case e.Op == "find" && len(e.Tried) > 0:
		return fmt.Sprintf("cannot start %s: %v (looked in %s)", e.Path, e.Err, strings.Join(e.Tried, ", "))
	case e.Op == "chdir":
		text = fmt.Sprintf("cannot start %s in %s: %v", e.Path, e.Dir, e.Err)
	case e.Op == "exec" && errors.Is(e.Err, syscall.ENOEXEC):
		return fmt.Sprintf("cannot start %s: it is not a program, and does not begin with #! (a script needs such a first line)", e.Path)
	case e.Op == "exec" || e.Op == "find" || e.Op == "user" || e.Op == "executor":
		text = fmt.Sprintf("cannot start %s: %v", e.Path, e.Err)
	}
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// hintFor says what to do where something has run out.
func hintFor(err error) string {
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return "the limit of processes or threads is reached (ulimit -u, pids.max): raise it, or try again when some have ended"
	case errors.Is(err, syscall.ENOMEM):
		return "free some memory, or raise the limit of the container"
	case errors.Is(err, syscall.EMFILE):
		return "raise the limit of descriptors (ulimit -n), or try again when some are closed"
	case errors.Is(err, syscall.ENFILE):
		return "raise the system's limit of open files (fs.file-max)"
	}
	return ""
}

// Temporary reports whether the same start may succeed later: the system, or the
// executor, had no room for it.
func (e *StartError) Temporary() bool {
	for _, err := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY, executor.ErrFull} {
		if errors.Is(e.Err, err) {
			return true
		}
	}
	return false
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// clone copies a command with what may change in it.
func (c *Command) clone() *Command {
	k := *c
	k.Args, k.Env, k.Limits, k.Files = slices.Clone(c.Args), slices.Clone(c.Env), slices.Clone(c.Limits), maps.Clone(c.Files)
	if c.Credential != nil {
		cred := *c.Credential
		cred.Groups = slices.Clone(cred.Groups)
		k.Credential = &cred
	}
	return &k
}

// check finds what is wrong with a command before anything is opened.
func (c *Command) check() error {
	bad := func(text string) error { return &StartError{Op: "descriptors", Path: c.Path, Err: errors.New(text)} }
	if c.Path == "" {
		return bad("the command has no program")
	}
	terminals := map[*Stream]bool{}
	for _, n := range slices.Sorted(maps.Keys(c.Files)) {
		f := c.Files[n]
		if n < 0 || n >= filesMost {
			return bad(fmt.Sprintf("descriptor %d is not between 0 and %d", n, filesMost-1))
		}
		if f.how == fromStream && f.stream.kind == terminal {
			terminals[f.stream] = true
		}
		if f.how == fromOurs && f.fd < 0 {
			return bad(fmt.Sprintf("descriptor %d would be %d of ours", n, f.fd))
		}
	}
	if len(terminals) > 1 {
		return bad("a session can have only one terminal")
	}
	return nil
}

// numbers is how many descriptors from 0 up the child's table describes.
func (c *Command) numbers() int {
	n := filesClosed
	for fd := range c.Files { // any order: it is the greatest
		n = max(n, fd+1)
	}
	return n
}
