package endpoint

import (
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/process"
)

// childrenMost is how many programs of one endpoint run at once, unless children= says
// otherwise.
const childrenMost = 100

// ErrNoCommand is the failure of an endpoint that runs a program and was given none;
// see Endpoint.SetCommand.
var ErrNoCommand = errors.New("no program to run: put it after --")

// ChildrenError is a program that was not started because as many run already as may.
type ChildrenError struct{ Most int }

func (e *ChildrenError) Error() string {
	return fmt.Sprintf("%d programs of this endpoint are running already (children=)", e.Most)
}

// TakesCommand reports whether the endpoint runs the program that SetCommand gives it.
func (e *Endpoint) TakesCommand() bool { return e.kind.Command && !e.Base.Has("link") }

// SetCommand gives an endpoint its program and what it is started with. argv belongs to
// the endpoint afterwards: each start reads it.
func (e *Endpoint) SetCommand(argv []string) { e.Base.argv = argv }

func childOptions() []OptionDoc {
	return []OptionDoc{
		{Name: "dir", Type: Path, Doc: "the directory to start the program in"},
		{Name: "user", Type: Text, Doc: "the user to run it as, with that user's groups: a name or a number"},
		{Name: "shell", Type: Flag, Doc: "the first word after -- is a script for /bin/sh, and the others are its arguments"},
		{Name: "children", Type: Bound, Doc: "how many programs at once; the default is 100; further connections are refused"},
		{Name: "grace", Type: Duration, Doc: "on a server, how long a program may continue after its connection has ended before it is asked to end, and after that before it is killed; the default is 5s"},
	}
}

const childDoc = `The program and its arguments follow --, exactly as they are: no shell reads them. weir
looks for the program in PATH. A server starts one for each connection, in a session of
its own. In its environment WEIR_PEER and WEIR_LOCAL are the addresses of the two ends,
WEIR_TLS_VERSION is the version of TLS, WEIR_TLS_SERVER_NAME is the server name that the
client asked for, WEIR_CERTIFICATE is the subject of the client's certificate, and
WEIR_USER is the user of a proxy. If nothing listens, weir exits with the program's exit
code, or with 128 plus the number of the signal that ended it.`

func execKind() *Kind {
	return &Kind{
		Name:    "exec",
		Role:    Dial,
		Summary: "a program's standard input and output",
		Doc:     childDoc,
		Command: true,
		Options: append(childOptions(),
			OptionDoc{Name: "stderr", Type: Choice("ours", "null", "out"), Doc: "where its standard error goes: to weir's own, nowhere, or with its output"},
			OptionDoc{Name: "socket", Type: Flag, Doc: "give it one socket for both directions instead of two pipes"}),
		Example:  "exec,dir=/srv",
		Describe: func(p *Part) string { return "starts " + commandName(p) },
		Prepare:  prepareChild,
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			f := func(weir.Transport) weir.Protocol { return proto }
			s := process.Pipes(f)
			if p.Has("socket") {
				s = process.Socket(f)
			}
			files := map[int]process.File{0: s.In(), 1: s.Out()}
			switch p.Value("stderr") {
			case "null":
			case "out":
				files[2] = s.Out()
			default:
				files[2] = process.Inherit(2)
			}
			return startChild(env, p, proto, files)
		},
	}
}

func ptyKind() *Kind {
	return &Kind{
		Name:    "pty",
		Role:    Dial,
		Summary: "a program on a terminal of its own, or a terminal for others to open",
		Doc: childDoc + `
If the other side is standard input and a terminal, every byte typed goes to the program
as it is (as with -,raw), and Ctrl-] ends weir. Changes of the window's size are passed
on. They do not travel over a network: there size= or stty sets it. The end of the input
reaches the program as Ctrl-D.

With link=PATH weir starts no program. Other programs, such as a terminal emulator, open
PATH as they would a serial line, and may come and go. When the other side has ended, the connection ends
once they have been silent for reply=; what none of them has read by then is lost.`,
		Command: true,
		Options: append(childOptions(),
			OptionDoc{Name: "size", Type: sizeType(), Doc: "the size of the terminal, COLUMNSxROWS; without it that of weir's own, if the other side is one"},
			OptionDoc{Name: "no-echo", Type: Flag, Doc: "do not echo what is sent to the program"},
			OptionDoc{Name: "link", Type: Path, Doc: "start no program, and make a link to the terminal here", Conflicts: []string{"dir", "user", "shell", "children", "grace", "no-echo"}},
			OptionDoc{Name: "mode", Type: Mode, Doc: "with link: the permissions of the terminal"},
			OptionDoc{Name: "once", Type: Flag, Doc: "with link: end when the last program has closed it"},
			OptionDoc{Name: "reply", Type: Duration, Doc: "with link: the reply is over when the programs have been silent for this long; 1s without it"},
		),
		Example: "pty,user=guest",
		Check: func(p *Part) *Fault {
			for _, name := range []string{"mode", "once", "reply"} {
				if o := p.Option(name); o != nil && !p.Has("link") {
					return &Fault{Token: &o.Key, Problem: name + " is for a terminal without a program", Hint: "add link=PATH, which other programs open"}
				}
			}
			return nil
		},
		Describe: func(p *Part) string {
			if p.Has("link") {
				return "is a terminal that programs open as " + p.Value("link")
			}
			return "starts " + commandName(p) + " on a terminal of its own"
		},
		Prepare: func(env *Env, p *Part) error {
			if p.Has("link") {
				return nil
			}
			return prepareChild(env, p)
		},
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			size := env.Window
			if p.Has("size") {
				size = terminalSize(p.Value("size"))
			}
			if p.Has("link") {
				return soon(env, "pty", p.Value("link"), proto, func() error { return openConsole(env, p, size, proto) })
			}
			typed := layer.Client(proto, typist())
			s := process.Terminal(size, func(weir.Transport) weir.Protocol { return typed })
			if p.Has("no-echo") {
				s.NoEcho()
			}
			return startChild(env, p, proto, map[int]process.File{0: s.In(), 1: s.In(), 2: s.In()})
		},
	}
}

// sizeType is the type of a terminal's size.
func sizeType() *Type {
	return &Type{Name: "size", Doc: "COLUMNSxROWS, such as 80x24", check: func(s string) *Fault {
		if z := terminalSize(s); z.Columns == 0 || z.Rows == 0 {
			return &Fault{Problem: fmt.Sprintf("bad size %q", s), Hint: "columns and rows from 1 to 65535: 80x24"}
		}
		return nil
	}}
}

// terminalSize reads a size; what is none is 0.
func terminalSize(s string) (z process.Size) {
	columns, rows, _ := strings.Cut(s, "x")
	c, _ := strconv.ParseUint(columns, 10, 16) // 0 if it is no number
	r, _ := strconv.ParseUint(rows, 10, 16)
	return process.Size{Columns: uint16(c), Rows: uint16(r)}
}

// openConsole opens a terminal without a program.
func openConsole(env *Env, p *Part, size process.Size, proto weir.Protocol) error {
	reply := serialReply
	if p.Has("reply") {
		reply = p.Duration("reply")
	}
	var console *process.Console
	over := func() {
		if console != nil {
			console.Release()
		}
	}
	c := process.ConsoleConfig{Link: env.Path(p.Value("link")), Size: size, Once: p.Has("once")}
	if p.Has("mode") {
		c.Mode = p.Mode("mode")
	}
	under := layer.Client(proto, awaitsReply("pty", reply, over))
	var err error
	console, err = process.OpenConsole(env.Loop, c, func(weir.Transport) weir.Protocol { return under })
	return err
}

// commandName is the program for people.
func commandName(p *Part) string {
	if len(p.argv) == 0 {
		return "the program after --"
	}
	name := programName(p)
	if u := p.Value("user"); u != "" {
		name += " as " + u
	}
	return name
}

// programName is the file that is run.
func programName(p *Part) string {
	if p.Has("shell") {
		return "sh"
	}
	return filepath.Base(p.argv[0])
}

// prepareChild finds what is wrong before a program is started.
func prepareChild(_ *Env, p *Part) error {
	if len(p.argv) == 0 {
		return ErrNoCommand
	}
	name := p.Value("user")
	if name == "" || p.account != nil {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		var byID error
		if u, byID = user.LookupId(name); byID != nil {
			return err
		}
	}
	groups, err := u.GroupIds()
	if err != nil {
		return err
	}
	c := &process.Credential{}
	ids := make([]uint32, 0, len(groups))
	for _, text := range append([]string{u.Uid, u.Gid}, groups...) {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("user %s: bad number %q", name, text)
		}
		ids = append(ids, uint32(id))
	}
	c.UID, c.GID, c.Groups = ids[0], ids[1], ids[2:]
	p.account = &account{credential: c, env: []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}}
	return nil
}

// account is whom programs run as.
type account struct {
	credential *process.Credential
	env        []string
}

// graceUsual is grace='s.
const graceUsual = 5 * time.Second

// Grace is how long a program of the endpoint may go on when its connection is over.
func (e *Endpoint) Grace() time.Duration {
	if d := e.Base.Duration("grace"); d > 0 {
		return d
	}
	return graceUsual
}

func startChild(env *Env, p *Part, proto weir.Protocol, files map[int]process.File) (stop func()) {
	fail := func(err error) {
		env.Loop.TellConnectFailed(proto, &weir.ConnectError{Network: p.Name.Text, Address: commandName(p), Stage: weir.StageSocket, Err: err})
	}
	refuse := func(err error) func() {
		call := env.Loop.Soon(func() { fail(err) })
		return func() { call.Cancel() }
	}
	if len(p.argv) == 0 {
		return refuse(ErrNoCommand)
	}
	if env.Executor == nil {
		return refuse(errors.New("starting a program blocks, and there is no executor to do it on (Env.Executor)"))
	}
	if most := bound(p, "children", childrenMost); most > 0 && p.children >= most {
		return refuse(&ChildrenError{Most: most})
	}
	c := &process.Command{Path: p.argv[0], Args: p.argv, Dir: env.Path(p.Value("dir")), Files: files, Session: env.Serves}
	if p.Has("shell") {
		c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", p.argv[0], "sh"}, p.argv[1:]...)
	}
	c.Env = append(c.Env, environ(env)...)
	if p.account != nil {
		c.Credential = p.account.credential
		c.Env = append(c.Env, p.account.env...)
	}
	c.Env = append(c.Env, env.ChildEnv...)
	p.children++
	f := process.Start(future.On(env.Loop), env.Executor, c)
	stopped := false
	f.OnDone(func(child *process.Process, err error) {
		if err != nil {
			p.children--
			if !stopped {
				fail(err)
			}
			return
		}
		child.OnExit(func(process.Exit) { p.children-- })
		switch {
		case stopped: // its transport was made and dropped
			child.Stop(0)
		case env.Child != nil:
			env.Child(child)
		}
	})
	return func() {
		stopped = true
		f.Cancel()
	}
}

// environ is what every program gets.
func environ(env *Env) []string {
	if env.Environ == nil {
		return nil
	}
	return env.Environ()
}

// typist is the layer under which a terminal seems to be able to end one direction: the
// end is typed.
func typist() layer.Layer {
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			t := &typing{}
			return t.Init(t, "pty", a)
		}}
	}
}

type typing struct {
	layer.Base
	open bool // what was written last does not end a line
}

var _ weir.Carrier = (*typing)(nil)

func (t *typing) Write(bufs [][]byte) (int, error) {
	n, err := t.Base.Write(bufs)
	left := n
	for _, b := range bufs {
		if left = left - len(b); left <= 0 && left+len(b) > 0 {
			t.open = b[left+len(b)-1] != '\n'
			break
		}
	}
	return n, err
}

func (t *typing) CanCloseWrite() bool { return true }

// CloseWrite implements weir.Carrier. Ctrl-D ends a line that is not empty, and, where
// it is empty, the input.
func (t *typing) CloseWrite() error {
	end := []byte{4}
	if t.open {
		end = []byte{4, 4}
	}
	_, err := t.Below().Write(end)
	return err
}

// escapes is the layer of a terminal that is raw: one byte of it ends the connection.
func escapes(end byte) layer.Layer {
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			e := &escape{end: end}
			return e.Init(e, "stdio", a)
		}}
	}
}

type escape struct {
	layer.Base
	end byte
}

var _ weir.Protocol = (*escape)(nil)

// ErrEscaped is the reason of a connection whose user has typed the key that ends it.
var ErrEscaped = errors.New("ended by the escape key")

func (e *escape) DataReceived(p []byte) (int, error) {
	for i, b := range p {
		if b == e.end {
			e.Deliver(p[:i])
			e.Fail(ErrEscaped)
			return len(p), nil
		}
	}
	e.Deliver(p)
	return len(p), nil
}
