package weirtest

import (
	"errors"
	"strings"

	"github.com/weir-io/weir"
)

// panicTests are R8: a callback that panics or fails loses its own connection,
// with the panic as the reason, and nothing else.
var panicTests = []streamTest{
	{"R8 panic in ConnectionMade", 0, panicIn("ConnectionMade")},
	{"R8 panic in DataReceived", 0, panicIn("DataReceived")},
	{"R8 panic in EOFReceived", needHalfClose, panicIn("EOFReceived")},
	{"R8 panic in PauseWriting", 0, panicIn("PauseWriting")},
	{"R8 panic in ResumeWriting", 0, panicIn("ResumeWriting")},
	{"R8 panic in WriteDrained", 0, panicIn("WriteDrained")},
	{"R8 panic in ReadBuffer", 0, panicIn("ReadBuffer")},
	// The connection is gone already; the loop must survive.
	{"R8 panic in ConnectionLost", 0, panicIn("ConnectionLost")},
	{"R8 an error as the panic's value", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onData = func([]byte) (int, error) { panic(errScript) }
		client.onMade = func() { client.write([]byte("x")) }
		c.begin(server, client)
		c.until("the server lost", func() bool { return server.lost > 0 })
		c.wantReason(server, isScript, "the panic's value")
	}},
	{"R8 panic in the factory", 0, func(c *streamCase) {
		bystander := c.bystander()
		client := c.end("client")
		client.keepOpen, client.begun, client.maybe = false, true, true
		c.s.Connect(func(weir.Transport) weir.Protocol { panic("factory") }, client.protocol())
		c.quiet()
		c.until("the client lost, if it ever was connected", func() bool { return client.made == client.lost })
		bystander()
	}},
	{"R8 a factory that returns nil refuses (74)", 0, func(c *streamCase) {
		bystander := c.bystander()
		client := c.end("client")
		client.keepOpen, client.begun, client.maybe = false, true, true
		c.s.Connect(func(weir.Transport) weir.Protocol { return nil }, client.protocol())
		c.quiet()
		c.until("the client lost, if it ever was connected", func() bool { return client.made == client.lost })
		bystander()
	}},
}

// bystander connects a pair and returns a check that it still works.
func (c *streamCase) bystander() func() {
	c.Helper()
	server, client := c.pair()
	server.onData = func(p []byte) (int, error) { return server.tr.Write(p) }
	c.connect(server, client)
	client.write([]byte("before"))
	c.until("the bystander's echo", func() bool { return len(client.got) == 6 })
	return func() {
		c.Helper()
		client.write([]byte("after"))
		c.until("the bystander's echo", func() bool { return len(client.got) == 11 })
		if server.lost+client.lost != 0 {
			c.Error("the bystander was lost")
		}
		client.close()
		c.allLostAfterEnd(server)
	}
}

func panicIn(where string) func(*streamCase) {
	return func(c *streamCase) {
		bystander := c.bystander()
		server, client := c.pair()
		client.keepOpen, client.maybe = false, true
		in := func(at string) {
			if at == where {
				panic("boom in " + at)
			}
		}
		server.onMade = func() {
			if where == "PauseWriting" || where == "ResumeWriting" || where == "WriteDrained" {
				server.flood()
			}
			in("ConnectionMade")
		}
		server.onData = func(p []byte) (int, error) { in("DataReceived"); return len(p), nil }
		server.onEOF = func(int) (bool, error) { in("EOFReceived"); return true, nil }
		server.onPause = func() { in("PauseWriting") }
		server.onResume = func() { in("ResumeWriting") }
		server.onDrain = func() { in("WriteDrained") }
		server.onLost = func(error) { in("ConnectionLost") }
		if where == "ReadBuffer" {
			server.buffer = func() []byte { in("ReadBuffer"); return nil }
		}
		client.onMade = func() {
			client.write([]byte("x"))
			if where == "EOFReceived" {
				client.writeEOF()
			}
		}
		c.begin(server, client)
		if where == "ConnectionLost" {
			c.until("the server connected", func() bool { return server.made > 0 })
			server.close()
		}
		c.until("the server lost", func() bool { return server.lost > 0 })
		if where != "ConnectionLost" {
			c.wantReason(server, func(err error) bool {
				var p *weir.PanicError
				return errors.As(err, &p) && p.Where == where && p.Conn != "" && p.Value == "boom in "+where && len(p.Stack) > 0 &&
					strings.Contains(err.Error(), p.Conn)
			}, "*PanicError from "+where)
		}
		bystander()
	}
}
