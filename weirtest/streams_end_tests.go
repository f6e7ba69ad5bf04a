package weirtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/weir-io/weir"
)

// endTests are behaviours 26, 27 and 29, and what a protocol decides at the end of
// a stream: how a peer's end or reset reaches it.
var endTests = []streamTest{
	// Readiness that says "hang-up" says nothing about the megabytes before it.
	{"26 the peer sends 4 MiB and closes, the protocol is busy", 0, func(c *streamCase) {
		server, client := c.pair()
		want := message(big)
		server.onMade = func() { server.tr.PauseReading() }
		client.onMade = func() { client.write(want); client.close() }
		c.begin(server, client)
		c.until("the server connected", func() bool { return server.made > 0 })
		c.quiet()
		server.resume()
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		c.wantBytes(server, want)
		server.close()
		c.allLost()
		c.wantClean(server, client)
	}},
	{"26 little data and the end are there at once", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onMade = func() { server.tr.PauseReading() }
		client.onMade = func() { client.write([]byte("all there is")); client.close() }
		c.begin(server, client)
		c.until("the server connected", func() bool { return server.made > 0 })
		c.quiet()
		server.resume()
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		c.wantBytes(server, []byte("all there is"))
	}},
	// `printf request | nc` and every HTTP/1.0 client: the end of the request does
	// not mean that no reply is wanted.
	{"27 reply 200 ms after the peer's half-close", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		reply := message(300_000)
		client.onMade = func() { client.write([]byte("request")); client.writeEOF() }
		server.onEOF = func(int) (bool, error) {
			server.tr.Loop().After(200*time.Millisecond, func() { server.write(reply); server.close() })
			return true, nil
		}
		c.begin(server, client)
		c.allLostAfterEnd(client)
		c.wantBytes(server, []byte("request"))
		c.wantBytes(client, reply)
		c.wantClean(server, client)
	}},
	{"27 the reply is longer than any buffer", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		reply := message(big)
		client.onMade = func() { client.write([]byte("request")); client.writeEOF() }
		server.onEOF = func(int) (bool, error) { server.write(reply); server.writeEOF(); return true, nil }
		c.begin(server, client)
		c.until("the client's end", func() bool { return client.eofs > 0 })
		c.allLost()
		c.wantBytes(client, reply)
		c.wantClean(server, client)
	}},
	// A protocol without EOFReceived gets flush and close.
	{"27 without EOFReceived what was written is flushed", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		reply := message(big)
		server.noEOF = true
		server.onData = func(p []byte) (int, error) {
			if len(p) < len("request") {
				return 0, nil
			}
			server.write(reply)
			return len(p), nil
		}
		client.onMade = func() { client.write([]byte("request")); client.writeEOF() }
		c.begin(server, client)
		c.allLost()
		c.wantBytes(client, reply)
		c.wantClean(server, client)
	}},
	{"27 EOFReceived that answers false", 0, func(c *streamCase) {
		server, client := c.pair()
		server.keepOpen = false
		client.onMade = func() { client.write([]byte("x")); client.close() }
		c.begin(server, client)
		c.allLost()
		c.wantClean(server, client)
	}},
	// A reset is not an end: the other side did not finish.
	{"29 reset while reading", needReset, reset(func(server, client *end) { client.abort() })},
	{"29 reset while both write", needReset, reset(func(server, client *end) {
		server.write(message(big))
		client.write(message(big))
		client.abort()
	})},
	{"29 reset after our half-close", needReset | needHalfClose, reset(func(server, client *end) {
		server.writeEOF()
		client.abort()
	})},
	// No one reads and no one writes, but a proxy must still learn of it.
	{"29 reset while reading is paused", needReset, reset(func(server, client *end) {
		server.tr.PauseReading()
		client.abort()
		server.tr.Loop().After(30*time.Millisecond, server.resume)
	})},
	// What had arrived before the reset is still data, if the system still has it;
	// what is delivered must be a prefix of what was sent (G2).
	{"29 data, then reset", needReset, func(c *streamCase) {
		server, client := c.pair()
		want := message(100_000)
		c.connect(server, client)
		client.write(want)
		c.until("some data", func() bool { return len(server.got) > 0 })
		client.abort()
		c.allLost()
		c.wantReason(server, isReset, "ECONNRESET")
		if !bytes.HasPrefix(want, server.got) {
			c.Error("what came is not the beginning of what was sent (G2)")
		}
	}},
	// Whether the read or the write finds out is chance; the reason must not be.
	{"29 writing to a peer that aborted", needReset, func(c *streamCase) {
		server, client := c.pair()
		server.onMade = func() { server.tr.PauseReading() }
		c.connect(server, client)
		client.abort()
		c.quiet()
		if server.lost == 0 {
			_, _ = server.tr.Write(message(1000)) // ErrClosed if the hang-up was seen
		}
		c.quiet()
		if server.lost == 0 {
			server.resume()
		}
		c.allLost()
		if server.err == nil {
			c.Error("lost with nil although the peer aborted")
		}
	}},
	// Abort must not look like a success to the other side.
	{"29 Abort with unsent bytes is no clean end", needReset | needReason, func(c *streamCase) {
		server, client := c.pair()
		server.maybe = c.s.Opaque // a layer may have had something to wait for
		client.onMade = func() { client.write(message(big)); client.abort() }
		c.begin(server, client)
		c.until("the client lost", func() bool { return client.lost > 0 })
		c.quiet()
		c.allLost()
		if server.made > 0 {
			c.wantReason(server, isReset, "ECONNRESET")
		}
	}},
	{"31 exchanged inside DataReceived, the tail goes to the new one", 0, func(c *streamCase) {
		for _, used := range []int{0, 3, 8} {
			server, client := c.pair()
			next := c.end("next")
			server.onData = func(p []byte) (int, error) {
				if len(p) < 8 {
					return 0, nil
				}
				server.tr.SetProtocol(c.takeOver(next, server))
				return used, nil
			}
			client.onMade = func() { client.write([]byte("STARTTLShello")); client.close() }
			c.begin(server, client)
			c.until("the new one's end", func() bool { return next.eofs > 0 })
			c.wantBytes(server, []byte("STARTTLS")[:used])
			c.wantBytes(next, []byte("STARTTLShello")[used:])
			if server.lost != 0 || next.made != 1 {
				c.Error("exchanging called ConnectionLost or ConnectionMade")
			}
			next.close()
			c.until("the new one lost", func() bool { return next.lost > 0 })
			c.wantClean(next)
			c.allLost()
		}
	}},
	{"31 exchanged from outside, a kept tail goes to the new one at once", 0, func(c *streamCase) {
		server, client := c.pair()
		next := c.end("next")
		server.onData = func([]byte) (int, error) { return 0, nil }
		client.onMade = func() { client.write([]byte("kept")) }
		c.begin(server, client)
		c.until("a tail", func() bool { return server.calls > 0 })
		c.quiet()
		calls := server.calls
		server.alone("SetProtocol", func() { server.tr.SetProtocol(c.takeOver(next, server)) })
		c.until("the tail", func() bool { return len(next.got) == 4 })
		c.wantBytes(next, []byte("kept"))
		if server.calls != calls {
			c.Error("the old one was called")
		}
		if p := server.tr.Protocol(); p == nil {
			c.Error("Protocol is nil")
		}
		next.abort()
		c.until("the new one lost", func() bool { return next.lost > 0 })
	}},
	{"31 exchanged inside ConnectionMade", 0, func(c *streamCase) {
		server, client := c.pair()
		next := c.end("next")
		server.onMade = func() { server.tr.SetProtocol(c.takeOver(next, server)) }
		client.onMade = func() { client.write([]byte("x")); client.close() }
		c.begin(server, client)
		c.until("the new one's end", func() bool { return next.eofs > 0 })
		c.wantBytes(next, []byte("x"))
		if server.calls != 0 {
			c.Error("the old one was called")
		}
	}},
	// The optional callbacks are looked up again: those of the new protocol count.
	{"31 the new one's callbacks are the ones called", 0, func(c *streamCase) {
		server, client := c.pair()
		next := c.end("next")
		next.onDrain = func() {}
		buffers := 0
		next.buffer = func() []byte { buffers++; return make([]byte, 10) }
		server.noEOF = true
		c.connect(server, client)
		server.tr.SetProtocol(c.takeOver(next, server))
		next.write([]byte("y"))
		client.write(message(100))
		c.until("drained and read", func() bool { return next.drains > 0 && len(next.got) == 100 })
		if buffers == 0 {
			c.Error("ReadBuffer was never called")
		}
	}},
	// The writer is paused, whichever protocol writes (G3, G4).
	{"31 exchanged while the writer is paused", 0, func(c *streamCase) {
		server, client, next := c.exchangedPaused()
		c.until("PauseWriting for the new one", func() bool { return next.pauses == 1 })
		server.resume()
		c.until("ResumeWriting for the new one", func() bool { return next.resumes == 1 })
		if next.pauses != 1 || client.pauses != 1 || client.resumes != 0 {
			c.Errorf("the old one: %v; the new one: %v", client, next)
		}
	}},
	{"31 one that writes at once hears at once", 0, func(c *streamCase) {
		server, client, next := c.exchangedPaused()
		next.flood()
		if next.flooded > 200_000 || next.pauses != 1 {
			c.Errorf("told after %d bytes: %v", next.flooded, next)
		}
		server.resume()
		c.until("all", func() bool { return len(server.got) == client.flooded+next.flooded })
	}},
	{"32 ReadBuffer supplies the memory", 0, func(c *streamCase) {
		server, client := c.pair()
		mine := make([]byte, 1000)
		server.buffer = func() []byte { return mine }
		server.onData = func(p []byte) (int, error) {
			if len(p) > len(mine) || &p[0] != &mine[0] {
				c.Error("the bytes are not in the buffer that was supplied")
			}
			return len(p), nil
		}
		want := message(50_000)
		client.onMade = func() { client.write(want); client.close() }
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		c.wantBytes(server, want)
	}},
	{"32 ReadBuffer supplies nothing", 0, func(c *streamCase) {
		for _, p := range [][]byte{nil, {}} {
			server, client := c.pair()
			client.maybe = true // the reset may come before it knows that it is connected
			server.buffer = func() []byte { return p }
			// A reader of descriptors is asked only once there is something.
			client.onMade = func() { _, _ = client.tr.Write([]byte("x")) }
			c.begin(server, client)
			c.until("the server lost", func() bool { return server.lost > 0 })
			c.wantReason(server, func(err error) bool { return errors.Is(err, weir.ErrNoBuffer) }, "ErrNoBuffer")
		}
	}},
	{"32 ReadBuffer panics", 0, func(c *streamCase) {
		server, client := c.pair()
		client.maybe = true
		server.buffer = func() []byte { panic("no buffer") }
		// A reader of descriptors is asked only once there is something.
		client.onMade = func() { _, _ = client.tr.Write([]byte("x")) }
		c.begin(server, client)
		c.until("the server lost", func() bool { return server.lost > 0 })
		c.wantReason(server, isPanic, "*PanicError")
	}},
	// A tail kept of supplied memory survives the next ReadBuffer.
	{"32 ReadBuffer with a tail", 0, func(c *streamCase) {
		server, client := c.pair()
		mine := make([]byte, 64)
		server.buffer = func() []byte { return mine }
		server.onData = func(p []byte) (int, error) { return len(p) / 10 * 10, nil }
		want := message(997)
		client.onMade = func() { client.write(want); client.close() }
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		c.wantBytes(server, want[:990])
		if server.unused != 7 {
			c.Errorf("%d bytes unused, want 7", server.unused)
		}
	}},
}

// reset is a case in which act makes the client abort: the server is lost with
// ECONNRESET.
func reset(act func(server, client *end)) func(*streamCase) {
	return func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		act(server, client)
		c.allLost()
		c.wantReason(client, isAborted, "ErrAborted")
		c.wantReason(server, isReset, "ECONNRESET")
		if server.eofs != 0 {
			c.Error("a reset was reported as an end of stream")
		}
	}
}

// takeOver makes next ready to follow e on its transport.
func (c *streamCase) takeOver(next, e *end) weir.Protocol {
	next.tr, next.made, next.begun = e.tr, 1, true
	e.maybe, e.begun = true, false // out of the game
	return next.protocol()
}

// errScript is the error that a protocol in a test fails with.
var errScript = errors.New("the protocol does not like it")

func isScript(err error) bool { return errors.Is(err, errScript) }

func isUnused(n int) func(error) bool {
	return func(err error) bool {
		var u *weir.UnusedError
		return errors.As(err, &u) && u.Unused == n && errors.Is(err, io.ErrUnexpectedEOF)
	}
}

func unusedWant(n int) string { return fmt.Sprintf("*UnusedError of %d bytes", n) }
