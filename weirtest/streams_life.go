package weirtest

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"
	"weak"

	"github.com/weir-io/weir"
)

const big = 4 << 20 // more than any system buffers

func isNil(err error) bool     { return err == nil }
func isAborted(err error) bool { return errors.Is(err, weir.ErrAborted) }
func isReset(err error) bool   { return errors.Is(err, syscall.ECONNRESET) }
func isPanic(err error) bool   { return errors.As(err, new(*weir.PanicError)) }

// lifeTests are behaviours 20 to 25, 30 and 33: the order of callbacks, and
// ending a connection from anywhere.
var lifeTests = []streamTest{
	// Everything rests on this order; end checks it in every other case too.
	{"20 made, data, end, lost", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() { client.write([]byte("ping")); client.close() }
		server.keepOpen = false
		c.begin(server, client)
		c.allLost()
		c.wantBytes(server, []byte("ping"))
		c.wantClean(server, client)
		if server.eofs != 1 {
			c.Errorf("end of stream %d times", server.eofs)
		}
	}},
	// A connection without a single byte begins and ends the same way.
	{"20 made and lost without data", 0, func(c *streamCase) {
		server, client := c.pair()
		server.noEOF = true
		c.connect(server, client)
		client.close()
		c.allLost()
		c.wantClean(server, client)
		if server.calls != 0 {
			c.Error("data came from nowhere")
		}
	}},
	// Write copies what it cannot send: the caller may use its slice again.
	{"20 the caller of Write may use its slice again", 0, func(c *streamCase) {
		server, client := c.pair()
		want := message(big / 4)
		client.onMade = func() {
			p := message(big / 4)
			client.write(p)
			clear(p)
			client.close()
		}
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 })
		c.wantBytes(server, want)
	}},
	// A protocol that aborts has torn down its state: one more DataReceived
	// would meet a corpse.
	{"21 Abort inside DataReceived", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() { client.write(message(1 << 20)) }
		server.onData = func(p []byte) (int, error) {
			server.abort()
			if server.lost != 0 {
				c.Error("ConnectionLost from inside Abort")
			}
			return 1, nil
		}
		c.begin(server, client)
		c.until("the server lost", func() bool { return server.lost > 0 })
		c.wantReason(server, isAborted, "ErrAborted")
		if server.calls != 1 {
			c.Errorf("DataReceived %d times", server.calls)
		}
	}},
	{"21 Abort twice, Abort then Close, Close then Abort", 0, func(c *streamCase) {
		for i, f := range []func(e *end){
			func(e *end) { e.abort(); e.abort() },
			func(e *end) { e.abort(); e.close() },
			func(e *end) { e.flood(); e.close(); e.abort() },
		} {
			server, client := c.pair()
			server.onMade = func() { server.tr.PauseReading() }
			client.onPause = func() {}
			c.connect(server, client)
			f(client)
			c.until("the client lost", func() bool { return client.lost > 0 })
			c.wantReason(client, isAborted, "ErrAborted")
			server.abort()
			c.allLost()
			if client.lost != 1 {
				c.Errorf("way %d: lost %d times", i, client.lost)
			}
		}
	}},
	// The panic is the news; the abort before it was a decision.
	{"22 Abort, then panic in the same callback", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() { client.write([]byte("x")) }
		server.onData = func([]byte) (int, error) { server.abort(); panic("after Abort") }
		c.begin(server, client)
		c.until("the server lost", func() bool { return server.lost > 0 })
		c.wantReason(server, isPanic, "*PanicError")
	}},
	{"23 Close inside ConnectionMade, server", needFlush, closeInMade(true)},
	{"23 Close inside ConnectionMade, client", 0, closeInMade(false)},
	{"23 Abort inside ConnectionMade, server", 0, abortInMade(true)},
	{"23 Abort inside ConnectionMade, client", 0, abortInMade(false)},
	// The transport has accepted the backlog; a slow reader is no excuse to drop it.
	{"24 Close with a backlog to a slow reader", 0, func(c *streamCase) {
		server, client := c.pair()
		want := message(big)
		client.onMade = func() { client.write(want); client.close() }
		server.onMade = func() { server.tr.PauseReading() }
		server.onData = func(p []byte) (int, error) {
			server.tr.PauseReading()
			server.tr.Loop().After(50*time.Microsecond, server.resume)
			return len(p), nil
		}
		c.begin(server, client)
		c.until("both ends connected", func() bool { return server.made > 0 })
		c.quiet()
		server.resume()
		c.until("the end", func() bool { return server.eofs > 0 })
		c.wantBytes(server, want)
		server.close()
		c.allLost()
		c.wantClean(server, client)
	}},
	{"24 Close with a backlog, and the peer half-closed before", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		want := message(big)
		client.onMade = func() { client.tr.PauseReading(); client.writeEOF() }
		server.onEOF = func(int) (bool, error) {
			server.write(want)
			server.close()
			return false, nil
		}
		c.begin(server, client)
		c.until("the server's backlog", func() bool { return server.eofs > 0 })
		c.quiet()
		client.resume()
		c.allLost()
		c.wantBytes(client, want)
		c.wantClean(server, client)
	}},
	// Neither reads any more, and neither can send before the other reads.
	{"24 both ends close with a backlog", 0, func(c *streamCase) {
		server, client := c.pair()
		for _, e := range []*end{server, client} {
			e.onPause = func() {}
			e.onMade = func() { e.tr.PauseReading() }
		}
		c.connect(server, client)
		server.flood()
		client.flood()
		server.write(message(big))
		client.write(message(big))
		server.close()
		client.close()
		c.allLost()
	}},
	// "Readable" is not "wanted": after Close no one wants it.
	{"25 Close with readable bytes left", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() { client.write(message(1 << 20)) }
		server.onData = func(p []byte) (int, error) { server.close(); return 1, nil }
		c.begin(server, client)
		c.until("the server lost", func() bool { return server.lost > 0 })
		c.wantReason(server, isNil, "nil")
		if server.calls != 1 || server.eofs != 0 {
			c.Errorf("DataReceived %d times, EOFReceived %d times", server.calls, server.eofs)
		}
	}},
	{"25 Close while paused, with a kept tail", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() { client.write(message(1000)) }
		server.onData = func(p []byte) (int, error) { server.tr.PauseReading(); return 1, nil }
		c.begin(server, client)
		c.until("data", func() bool { return server.calls > 0 })
		server.close()
		server.tr.ResumeReading()
		c.until("the server lost", func() bool { return server.lost > 0 })
		c.wantReason(server, isNil, "nil")
	}},
	// Unread data must not cause a reset that destroys the answer.
	{"25 what was written before Close arrives although bytes were unread", needFlush, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() { client.write(message(200_000)) }
		server.onData = func(p []byte) (int, error) {
			server.write([]byte("too much"))
			server.close()
			return 0, nil
		}
		c.begin(server, client)
		c.until("the answer", func() bool { return len(client.got) >= 8 || client.lost > 0 })
		c.wantBytes(client, []byte("too much"))
	}},
	{"30 Close inside every callback", 0, endInside((*end).close, isNil, "nil")},
	{"30 Abort inside every callback", 0, endInside((*end).abort, isAborted, "ErrAborted")},
	{"28 vectored writes with empty pieces", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() {
			for _, v := range [][][]byte{{nil, []byte("a"), {}, []byte("b"), nil}, {nil, nil}, {}, nil, {[]byte("c")}} {
				want := 0
				for _, p := range v {
					want += len(p)
				}
				if n, err := client.tr.Writev(v); n != want || err != nil {
					c.Errorf("Writev of %q: %d, %v", v, n, err)
				}
			}
			client.close()
		}
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 })
		c.wantBytes(server, []byte("abc"))
		server.close()
		c.allLost()
		c.wantClean(server, client)
	}},
	{"28 a vectored write of nothing, then Close", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() {
			if n, err := client.tr.Writev([][]byte{{}, nil}); n != 0 || err != nil {
				c.Errorf("Writev of nothing: %d, %v", n, err)
			}
			client.write(nil)
			client.close()
		}
		server.keepOpen = false
		c.begin(server, client)
		c.allLost()
		c.wantClean(server, client)
	}},
	{"28 a vectored write of many pieces", 0, func(c *streamCase) {
		server, client := c.pair()
		want := message(300_000)
		client.onMade = func() {
			var v [][]byte
			for i := 0; i < len(want); i += 100 {
				v = append(v, want[i:min(i+100, len(want))], nil)
			}
			if n, err := client.tr.Writev(v); n != len(want) || err != nil {
				c.Errorf("Writev: %d, %v", n, err)
			}
			client.close()
		}
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 })
		c.wantBytes(server, want)
	}},
	// A log line about a connection that is gone needs to say whose it was.
	{"33 addresses after the close", 0, func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		addrs := func(e *end) string {
			for _, a := range []net.Addr{e.tr.LocalAddr(), e.tr.RemoteAddr()} {
				if a == nil || a.Network() == "" {
					c.Fatalf("%s: address %v", e.name, a)
				}
			}
			return fmt.Sprint(e.tr.LocalAddr(), " ", e.tr.RemoteAddr())
		}
		before := addrs(server) + addrs(client)
		server.close()
		c.allLostAfterEnd(client)
		if after := addrs(server) + addrs(client); after != before {
			c.Errorf("addresses were %s and are %s", before, after)
		}
	}},
	// On a system that has to be asked for the connection's name, this is when it
	// would be asked, too late.
	{"33 addresses first read after a reset", needReset, func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		server.abort()
		c.until("the client lost", func() bool { return client.lost > 0 })
		if l, r := client.tr.LocalAddr(), client.tr.RemoteAddr(); l == nil || r == nil {
			c.Errorf("addresses %v, %v", l, r)
		}
		if s, k := lowest(server.tr).LocalAddr().String(), lowest(client.tr).RemoteAddr().String(); s != k {
			c.Errorf("the server was at %q, its client says %q", s, k)
		}
	}},
	// A lost transport that someone keeps must not keep alive everything that its
	// protocol keeps.
	{"34 no reference to the protocol is kept", 0, func(c *streamCase) {
		var refs [2]weak.Pointer[forgetful]
		var trs [2]weir.Transport
		lost := 0
		func() {
			mk := func(i int) weir.Protocol {
				p := &forgetful{lost: &lost, tr: &trs[i]}
				refs[i] = weak.Make(p)
				return p
			}
			c.s.Connect(func(weir.Transport) weir.Protocol { return mk(0) }, mk(1))
		}()
		c.until("two connections made and lost", func() bool { return lost == 2 })
		c.pass(time.Millisecond)
		for range 20 {
			runtime.GC()
			if refs[0].Value() == nil && refs[1].Value() == nil {
				break
			}
		}
		for i, name := range []string{"server", "client"} {
			if p := trs[i].Protocol(); p != nil {
				c.Errorf("%s: Protocol of a lost transport is %v", name, p)
			}
			if refs[i].Value() != nil {
				c.Errorf("%s: the protocol is still reachable", name)
			}
		}
		runtime.KeepAlive(trs)
	}},
	// Writes that come too late are an everyday race: they return an error and do nothing else.
	{"20 calls after the end are errors or nothing", 0, func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		late := func(when string) {
			if n, err := client.tr.Write([]byte("x")); n != 0 || !errors.Is(err, weir.ErrClosed) || !errors.Is(err, net.ErrClosed) {
				c.Errorf("Write %s: %d, %v", when, n, err)
			}
			if n, err := client.tr.Writev([][]byte{{1}}); n != 0 || !errors.Is(err, weir.ErrClosed) {
				c.Errorf("Writev %s: %d, %v", when, n, err)
			}
			client.tr.PauseReading()
			client.tr.ResumeReading()
			client.tr.UnregisterProducer()
			if err := client.tr.Close(); err != nil {
				c.Errorf("Close %s: %v", when, err)
			}
		}
		client.close()
		late("after Close")
		server.close()
		c.allLost()
		late("when lost")
		client.tr.Abort()
		client.tr.SetProtocol(weir.DataFunc(nil))
		if p := client.tr.Protocol(); p != nil {
			c.Errorf("Protocol is %v", p)
		}
		if n := client.tr.Buffered(); n != 0 {
			c.Errorf("Buffered is %d", n)
		}
		c.wantClean(server, client)
	}},
}

// forgetful closes as soon as it is connected.
type forgetful struct {
	weir.NopProtocol
	lost *int
	tr   *weir.Transport
	_    [64]byte // not tiny: tiny objects share their fate
}

func (f *forgetful) ConnectionMade(t weir.Transport) { *f.tr = t; _ = t.Close() }
func (f *forgetful) ConnectionLost(error)            { *f.lost++ }

// allLostAfterEnd waits for other's end of stream, closes it, and waits for all.
func (c *streamCase) allLostAfterEnd(other *end) {
	c.Helper()
	c.until("the end of stream", func() bool { return other.eofs > 0 || other.lost > 0 })
	if other.lost == 0 {
		other.close()
	}
	c.allLost()
}

// closeInMade: this is how a server that greets and hangs up is written.
func closeInMade(byServer bool) func(*streamCase) {
	return func(c *streamCase) {
		closer, other := c.pair()
		server, client := closer, other
		if !byServer {
			server, client = other, closer
		}
		closer.onMade = func() {
			closer.write([]byte("hello"))
			closer.close()
			if closer.lost != 0 {
				c.Error("ConnectionLost from inside Close")
			}
		}
		other.keepOpen = false
		c.begin(server, client)
		c.allLost()
		c.until("the other's end", func() bool { return other.lost > 0 })
		c.wantBytes(other, []byte("hello"))
		c.wantClean(server, client)
		if other.eofs != 1 {
			c.Errorf("end of stream %d times", other.eofs)
		}
	}
}

func abortInMade(byServer bool) func(*streamCase) {
	return func(c *streamCase) {
		aborter, other := c.pair()
		server, client := aborter, other
		if !byServer {
			server, client = other, aborter
		}
		aborter.onMade = func() { aborter.abort() }
		other.keepOpen = false
		// The other end may never have been made, if the reset came first.
		other.maybe = true
		c.begin(server, client)
		c.until("the one that aborts lost", func() bool { return aborter.lost > 0 })
		c.wantReason(aborter, isAborted, "ErrAborted")
		c.quiet()
		c.until("the other end lost, if it was made", func() bool { return other.made == 0 || other.lost > 0 })
	}
}

// endInside ends a connection from inside each callback that there is.
func endInside(finish func(*end), ok func(error) bool, want string) func(*streamCase) {
	return func(c *streamCase) {
		for _, where := range []string{"DataReceived", "EOFReceived", "PauseWriting", "ResumeWriting", "WriteDrained", "ReadBuffer"} {
			if where == "EOFReceived" && !c.s.HalfClose {
				continue
			}
			server, client := c.pair()
			client.maybe = true
			done := false
			in := func(at string) {
				if at == where && !done {
					done = true
					finish(server)
				}
			}
			server.onData = func(p []byte) (int, error) { in("DataReceived"); return len(p), nil }
			server.onEOF = func(int) (bool, error) { in("EOFReceived"); return true, nil }
			server.onPause = func() { in("PauseWriting") }
			server.onResume = func() { in("ResumeWriting") }
			server.onDrain = func() { in("WriteDrained") }
			if where == "ReadBuffer" {
				server.buffer = func() []byte { in("ReadBuffer"); return make([]byte, 100) }
			}
			server.onMade = func() {
				if where == "PauseWriting" || where == "ResumeWriting" || where == "WriteDrained" {
					server.flood()
				}
			}
			client.onMade = func() {
				client.write([]byte("x"))
				if where == "EOFReceived" {
					client.writeEOF()
				}
			}
			c.begin(server, client)
			c.until(where, func() bool { return done })
			c.until("the server lost", func() bool { return server.lost > 0 })
			c.wantReason(server, ok, want+" after "+where)
			c.until("the client connected, or reset before", func() bool { return client.made > 0 || client.failure != nil })
			if client.made > 0 && client.lost == 0 {
				client.abort()
			}
			c.allLost()
		}
	}
}

// lowest is the lowest transport under t: a proxy's layer shows other addresses
// than those at the wire.
func lowest(t weir.Transport) weir.Transport {
	for {
		u, ok := t.(interface{ Unwrap() weir.Transport })
		if !ok {
			return t
		}
		below := u.Unwrap()
		if below == nil {
			return t
		}
		t = below
	}
}

// exchangedPaused connects a server that does not read, and replaces the client's
// protocol by next when its writer is paused.
func (c *streamCase) exchangedPaused() (server, client, next *end) {
	c.Helper()
	server, client = c.pair()
	next = c.end("next")
	server.onMade = func() { server.tr.PauseReading() }
	client.onPause = func() {}
	next.onPause = func() {}
	c.connect(server, client)
	client.flood()
	client.alone("SetProtocol", func() { client.tr.SetProtocol(c.takeOver(next, client)) })
	return server, client, next
}
