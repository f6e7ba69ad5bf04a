package endpoint

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/file"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/layer"
)

func stdioKind() *Kind {
	return &Kind{
		Name:    "stdio",
		Role:    Open,
		Summary: "standard input and output",
		Doc: "- alone is short for it. On a terminal, if the other side is pty or with raw, every\n" +
			"byte typed is passed on as it is, even Ctrl-C, and the escape key ends weir.",
		Options: []OptionDoc{
			{Name: "raw", Type: Flag, Doc: "put the terminal into raw mode, and restore it at the end"},
			{Name: "escape", Type: Choice(slices.Concat([]string{"none"}, controlKeys())...), Doc: "the key that ends a raw terminal's connection; the default is ^]"},
		},
		Example:  "-,raw",
		Describe: func(*Part) string { return "is standard input and output" },
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			if key := p.Value("escape"); (env.Raw || p.Has("raw")) && key != "none" {
				end := byte(']' & 0x1f)
				if key != "" {
					end = key[1] & 0x1f
				}
				proto = layer.Client(proto, escapes(end))
			}
			return soon(env, "fd", "stdio", proto, func() error {
				return attachPair(env, env.Stdin, env.Stdout, "stdio", proto)
			})
		},
	}
}

// attachPair attaches two descriptors, or one that is both. Files are read and written by
// the executor, if there is one.
func attachPair(env *Env, r, w int, name string, proto weir.Protocol) error {
	f := func(weir.Transport) weir.Protocol { return proto }
	var err error
	if env.Executor == nil {
		_, err = env.Loop.AttachPair(r, w, name, f)
	} else {
		_, err = file.AttachPair(future.On(env.Loop), env.Executor, r, w, name, f)
	}
	return err
}

// controlKeys are the keys that can be an escape, as ^] is.
func controlKeys() (all []string) {
	for c := byte('A'); c <= '_'; c++ {
		all = append(all, "^"+string(c))
	}
	return all
}

// descriptorType is the type of a descriptor, given by number or by the name
// that a service manager gave it.
func descriptorType() *Type {
	return &Type{Name: "number|name", Doc: "a descriptor's number, or a service manager's name for it (LISTEN_FDNAMES)", check: func(s string) *Fault {
		if strings.Trim(s, "0123456789") == "" {
			if n, err := strconv.ParseUint(s, 10, 32); err != nil || n > math.MaxInt32 {
				return &Fault{Problem: fmt.Sprintf("bad descriptor %q", s), Hint: "a number such as 3"}
			}
			return nil
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return &Fault{Problem: fmt.Sprintf("bad descriptor %q", s), Hint: "a number such as 3, or a name"}
		}
		return nil
	}}
}

func numberType() *Type {
	return &Type{Name: "number", Doc: "a descriptor's number", check: func(s string) *Fault {
		if n, err := strconv.ParseUint(s, 10, 32); err != nil || n > math.MaxInt32 {
			return &Fault{Problem: fmt.Sprintf("bad descriptor %q", s), Hint: "a number such as 4"}
		}
		return nil
	}}
}

func fdKind() *Kind {
	return &Kind{
		Name:    "fd",
		Role:    Open,
		Summary: "a descriptor that was passed to weir",
		Doc: "A number may be anything: a connection, a pipe, a terminal, or a listening\n" +
			"socket. A name stands for every listening socket that has it from a service\n" +
			"manager (LISTEN_FDS, LISTEN_FDNAMES).",
		Arg: Arg{Name: "number|name", Type: descriptorType()},
		Options: append([]OptionDoc{
			{Name: "out", Type: numberType(), Doc: "write to this descriptor instead"},
		}, boundDocs()...),
		Example: "fd:3,out=4",
		RoleOf: func(p *Part) Role {
			if n, err := strconv.Atoi(p.ArgText()); err == nil && (p.Has("out") || !isListening(n)) {
				return Open
			}
			return Listen
		},
		Check: func(p *Part) *Fault {
			out := p.Option("out")
			n, err := strconv.Atoi(p.ArgText())
			if err != nil && out != nil {
				return &Fault{Token: &out.Key, Problem: "a named descriptor is a listening socket and cannot be joined with another"}
			}
			for _, d := range boundDocs() {
				if o := p.Option(d.Name); o != nil && err == nil && (out != nil || !isListening(n)) {
					return &Fault{Token: &o.Key, Problem: "descriptor " + p.ArgText() + " does not listen, so it has no connections to limit"}
				}
			}
			return nil
		},
		Describe: func(p *Part) string {
			if p.Has("out") {
				return "reads from descriptor " + p.ArgText() + ", writes to " + p.Value("out")
			}
			return "uses descriptor " + p.ArgText() + ", which was passed in" + describeBounds(p)
		},
		Listen: func(env *Env, p *Part, f weir.Factory) ([]Listener, error) {
			fds, err := descriptors(env, p.ArgText())
			if err != nil {
				return nil, err
			}
			var all []Listener
			bound := admission(env, p, placeWait) // all of them count together
			for _, fd := range fds {
				ln, err := env.Loop.ListenFD(fd, f, bound)
				if err != nil {
					_ = (&Listeners{all: all}).Close() // always nil
					return nil, err
				}
				all = append(all, ln)
			}
			return all, nil
		},
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			return soon(env, "fd", "fd "+p.ArgText(), proto, func() error {
				in, err := descriptors(env, p.ArgText()) // a number: there is one
				if err != nil {
					return err
				}
				out := in
				if p.Has("out") {
					if out, err = descriptors(env, p.Value("out")); err != nil {
						return err
					}
				}
				return attachPair(env, in[0], out[0], "fd "+p.ArgText(), proto)
			})
		},
	}
}

// firstPassed is the first descriptor a service manager passes.
const firstPassed = 3

// descriptors finds a descriptor that was passed in by its number, or those that have a name.
func descriptors(env *Env, s string) (fds []int, err error) {
	if n, bad := strconv.Atoi(s); bad == nil {
		fds = []int{n}
	} else if fds, err = namedDescriptors(env, s); err != nil {
		return nil, err
	}
	for _, n := range fds {
		if err := checkPassed(n); err != nil {
			return nil, err
		}
	}
	return fds, nil
}

// namedDescriptors are those of a name, at least one. A service manager gives one name to all
// sockets of a unit.
func namedDescriptors(env *Env, name string) (fds []int, err error) {
	if pid, _ := env.lookup("LISTEN_PID"); pid != strconv.Itoa(os.Getpid()) {
		return nil, fmt.Errorf("no descriptor named %q: LISTEN_PID does not name this process, so no service manager passed it any", name)
	}
	count, _ := env.lookup("LISTEN_FDS")
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return nil, errors.New("LISTEN_FDS is not a number above 0")
	}
	names, _ := env.lookup("LISTEN_FDNAMES")
	for i, have := range strings.Split(names, ":") {
		if have == name && i < n {
			fds = append(fds, firstPassed+i)
		}
	}
	if fds == nil {
		return nil, fmt.Errorf("no descriptor named %q: LISTEN_FDNAMES has %q", name, names)
	}
	return fds, nil
}

func pipeKind() *Kind {
	return &Kind{
		Name:    "pipe",
		Role:    Open,
		Summary: "named pipes: one to read from, one to write to, or both",
		Doc: "It waits for the other end, and ends when the last writer has closed. Readers and\n" +
			"writers may open it in any order.",
		Arg:     Arg{Name: "path", Type: Path, Optional: true},
		Options: []OptionDoc{{Name: "out", Type: Path, Doc: "the named pipe to write to"}},
		Example: "pipe:requests.fifo,out=replies.fifo",
		Check: func(p *Part) *Fault {
			if p.Arg == nil && !p.Has("out") {
				return &Fault{Problem: "a pipe to read from or to write to is missing", Hint: "write pipe:PATH, or pipe,out=PATH"}
			}
			return nil
		},
		Describe: func(p *Part) string {
			switch {
			case p.Arg == nil:
				return "writes to named pipe " + p.Value("out")
			case !p.Has("out"):
				return "reads from named pipe " + p.ArgText()
			}
			return "reads from named pipe " + p.ArgText() + ", writes to " + p.Value("out")
		},
		Connect: connectPipe,
	}
}

// pipeRetry is how often we check whether a pipe has a reader by now: the
// system has no event for it.
const pipeRetry = 50 * time.Millisecond

func connectPipe(env *Env, p *Part, _ string, proto weir.Protocol) func() {
	c := &pipeConnect{env: env, part: p, proto: proto}
	c.timer = env.Loop.NewTimer(c.try)
	c.timer.Set(0)
	return c.stop
}

// pipeConnect opens the pipe to read from, so that its writer need not wait,
// and then waits until the pipe to write to has a reader: otherwise two
// programs joined by two pipes would wait for each other.
type pipeConnect struct {
	env   *Env
	part  *Part
	proto weir.Protocol
	timer *weir.Timer
	in    *pipeIn // nil: not open, or not wanted
}

func (c *pipeConnect) stop() {
	c.timer.Stop()
	if c.in != nil {
		c.in.close()
	}
}

func (c *pipeConnect) try() {
	r, w := -1, -1
	name := c.part.Value("out")
	if c.part.Arg != nil {
		name = c.part.ArgText()
		if c.in == nil {
			in, err := openPipeIn(c.env.Loop, c.env.Path(name))
			if err != nil {
				c.fail(name, err)
				return
			}
			c.in = in
		}
		r = c.in.fd
	}
	if out := c.part.Value("out"); out != "" {
		fd, err := openPipe(c.env.Path(out), true)
		if errors.Is(err, errNoReader) {
			c.timer.Set(pipeRetry)
			return
		}
		if err != nil {
			c.fail(out, err)
			return
		}
		w = fd
	}
	in := c.in
	c.in = nil
	t, err := c.env.Loop.AttachPair(r, w, name, func(weir.Transport) weir.Protocol { return c.proto })
	switch {
	case err == nil && in != nil:
		in.holdFor(t) // the loop has its descriptor
	case err == nil:
	case errors.Is(err, weir.ErrClosed):
		if in != nil {
			in.begun() // the loop has closed the others
		}
	default:
		c.in = in
		closeFD(w)
		c.fail(name, err)
	}
}

func (c *pipeConnect) fail(path string, err error) {
	c.stop()
	c.env.Loop.TellConnectFailed(c.proto, &weir.ConnectError{Network: "pipe", Address: path, Stage: weir.StageSocket, Err: err})
}

// pipeIn is a named pipe that is open for reading. Its stream must not end
// before it has begun: until some process has written to it, or has closed it
// without writing, we hold it open for writing too.
type pipeIn struct {
	loop             *weir.Loop
	fd               int
	look, left, hold int
	watches          []*weir.Watch
	lost             *weir.Timer // looks whether the stream was lost before it has begun
}

// pipeLook is how often a pipe that no one has written to is asked whether its connection
// has ended meanwhile.
const pipeLook = time.Second

// holdFor holds the pipe open until its stream has begun or t is lost.
func (p *pipeIn) holdFor(t weir.Transport) {
	if p.watches == nil {
		return // it has begun
	}
	p.lost = p.loop.NewTimer(func() {
		if t.Protocol() == nil {
			p.begun()
			return
		}
		p.lost.Set(pipeLook)
	})
	p.lost.Set(pipeLook)
}

func openPipeIn(l *weir.Loop, path string) (*pipeIn, error) {
	p := &pipeIn{loop: l, fd: -1, look: -1, left: -1, hold: -1}
	err := p.open(l, path)
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pipeIn) open(l *weir.Loop, path string) (err error) {
	p.left = watchWriters(path)
	if p.fd, err = openPipe(path, false); err != nil {
		return err
	}
	if p.hold, err = openPipe(path, true); err != nil {
		return err
	}
	if p.look, err = dupFD(p.fd); err != nil {
		return err
	}
	for _, fd := range []int{p.look, p.left} {
		if fd < 0 {
			continue
		}
		w, err := l.Watch(fd, weir.EventRead, func(weir.Events) { p.begun() })
		if err != nil {
			return err
		}
		p.watches = append(p.watches, w)
	}
	return nil
}

// begun releases what keeps the stream from ending.
func (p *pipeIn) begun() {
	for _, w := range p.watches {
		w.Remove()
	}
	p.watches = nil
	if p.lost != nil {
		p.lost.Stop()
	}
	closeFD(p.look)
	closeFD(p.left)
	closeFD(p.hold)
	p.look, p.left, p.hold = -1, -1, -1
}

func (p *pipeIn) close() {
	p.begun()
	closeFD(p.fd)
	p.fd = -1
}
