package endpoint

import (
	"errors"
	"math"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/file"
	"github.com/weir-io/weir/future"
)

func fileKind() *Kind {
	return &Kind{
		Name:    "file",
		Role:    Dial,
		Summary: "a file: what it has, or what is written to it, or both",
		Doc: `Without an option the file is read. It ends the connection when all of it was read, and
what comes from the other side meanwhile is dropped. With write, append, create or
truncate it is written instead, and with read or follow too it is both. A file that is
written ends the connection when the other side has ended and all of that is in the file.
A server opens it for each connection; with append no connection overwrites what another
has written.`,
		Arg: Arg{Name: "path", Type: Path},
		Options: []OptionDoc{
			{Name: "read", Type: Flag, Doc: "read it, beside what else is asked for"},
			{Name: "follow", Type: Flag, Doc: "at its end wait until it grows; from its beginning once it is shorter, or another file has its name"},
			{Name: "write", Type: Flag, Doc: "write over what it has", Conflicts: []string{"append"}},
			{Name: "append", Type: Flag, Doc: "write at its end, wherever that is by then"},
			{Name: "create", Type: Flag, Doc: "make it if there is none, and write"},
			{Name: "mode", Type: Mode, Doc: "the permissions that create gives it; without it 0666 less the umask"},
			{Name: "truncate", Type: Flag, Doc: "empty it first, and write"},
			{Name: "at", Type: SizeUpTo(math.MaxInt64), Doc: "where reading and writing begin: so many bytes are skipped"},
		},
		Example: "file:/var/log/lines,append,create,mode=0640",
		Check: func(p *Part) *Fault {
			c := fileConfig(p)
			switch mode, at := p.Option("mode"), p.Option("at"); {
			case mode != nil && !c.Create:
				return &Fault{Token: &mode.Key, Problem: "mode is for a file that create makes", Hint: "add ,create"}
			case at != nil && c.Append && !c.Read && !c.Follow:
				return &Fault{Token: &at.Key, Problem: "append writes at the end of the file, not at a place in it", Hint: "write in place of append writes there"}
			case at != nil && c.Truncate:
				return &Fault{Token: &at.Key, Problem: "truncate empties the file, so there is nothing to skip"}
			}
			return nil
		},
		Describe: func(p *Part) string {
			c := fileConfig(p)
			how := ""
			switch {
			case c.Append:
				how = "appends to"
			case c.Truncate:
				how = "replaces"
			case c.Write || c.Create:
				how = "writes to"
			}
			switch {
			case how == "" && c.Follow:
				how = "reads, as it grows,"
			case how == "":
				how = "reads"
			case c.Read || c.Follow:
				how = "reads, and " + how + ","
			}
			return how + " " + p.ArgText()
		},
		Connect: connectFile,
	}
}

// fileConfig is what a part asks for.
func fileConfig(p *Part) *file.Config {
	c := &file.Config{
		Read: p.Has("read"), Follow: p.Has("follow"),
		Write: p.Has("write"), Append: p.Has("append"), Create: p.Has("create"), Truncate: p.Has("truncate"),
	}
	if p.Has("mode") {
		c.Mode = p.Mode("mode")
	}
	if p.Has("at") {
		c.At = p.Size("at")
	}
	if !c.Write && !c.Append && !c.Create && !c.Truncate {
		c.Read = true
	}
	return c
}

func connectFile(env *Env, p *Part, _ string, proto weir.Protocol) (stop func()) {
	fail := func(err error) {
		env.Loop.TellConnectFailed(proto, &weir.ConnectError{Network: "file", Address: p.ArgText(), Stage: weir.StageSocket, Err: err})
	}
	c := fileConfig(p)
	c.Path = env.Path(p.ArgText())
	opening := file.Open(future.On(env.Loop), env.Executor, c, func(weir.Transport) weir.Protocol { return proto })
	stopped := false
	opening.OnDone(func(_ weir.Transport, err error) {
		switch {
		case err == nil || stopped || errors.Is(err, weir.ErrClosed):
		case errors.Is(err, file.ErrNoExecutor):
			fail(errors.New("reading and writing a file blocks, and there is no executor for it (Env.Executor)"))
		default:
			fail(err)
		}
	})
	return func() {
		stopped = true
		opening.Cancel()
	}
}
