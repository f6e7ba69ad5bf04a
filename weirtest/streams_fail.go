package weirtest

import (
	"bytes"
	"errors"
	"time"

	"github.com/weir-io/weir"
)

// failTests are the hard cases of G2 and G5: a peer that leaves while reading
// is paused, bytes before a reset, bytes that a protocol leaves to the next
// one.
var failTests = []streamTest{
	// A protocol that has paused reading cannot learn of a reset by reading.
	{"29 a reset while paused reaches the writer, then what came before it", needReset, func(c *streamCase) {
		server, client := c.pair()
		want := message(1000)
		seen, going := 0, false
		server.onData = func(p []byte) (int, error) {
			if going {
				return len(p), nil
			}
			seen = len(p)
			server.tr.PauseReading()
			return 0, nil
		}
		server.onFail = func(err error) {
			if !isReset(err) {
				c.Errorf("WriteFailed(%v), want ECONNRESET", err)
			}
			server.tr.Loop().After(time.Millisecond, func() { going = true; server.resume() })
		}
		c.connect(server, client)
		client.write(want)
		c.until("the server's pause", func() bool { return seen > 0 })
		client.abort()
		c.until("the server told", func() bool { return server.fails > 0 || server.lost > 0 })
		c.allLost()
		c.wantReason(server, isReset, "ECONNRESET")
		if len(server.got) < seen || !bytes.HasPrefix(want, server.got) || server.fails == 0 {
			c.Errorf("%d bytes were there when reading paused, %d were delivered; told %d times", seen, len(server.got), server.fails)
		}
	}},
	// Neither end reads, so that only the system can tell.
	{"29 an abort with both ends full and paused is told", needNotice, func(c *streamCase) {
		for _, told := range []bool{false, true} {
			server, client := c.pair()
			for _, e := range []*end{server, client} {
				e.onMade = func() { e.tr.PauseReading() }
				e.onPause = func() {}
			}
			if told {
				server.onFail = func(error) { server.resume() }
			}
			c.connect(server, client)
			for range 2 {
				server.flood()
				client.flood()
				c.pass(5 * time.Millisecond)
			}
			client.abort()
			c.until("the server told", func() bool {
				if server.fails == 0 && server.lost == 0 && server.pauses == server.resumes {
					_, _ = server.tr.Write(message(100_000)) // ErrClosed once it is known
				}
				return server.fails > 0 || server.lost > 0
			})
			c.allLost()
			if server.err == nil {
				c.Error("lost with nil, with bytes that were not read")
			}
			c.finish()
		}
	}},
	// A protocol that continues to write to a peer that has left must not do so forever.
	{"29 writing to a peer that has closed fails", 0, func(c *streamCase) {
		for _, told := range []bool{false, true} {
			for _, paused := range []bool{false, true} {
				server, client := c.pair()
				if told {
					server.onFail = func(error) { server.resume() }
				}
				c.connect(server, client)
				if paused {
					server.tr.PauseReading()
				}
				client.close()
				c.until("the client lost", func() bool { return client.lost > 0 })
				total := 0
				for turns := 0; server.lost == 0; turns++ {
					if c.pass(time.Millisecond); turns > 20_000 {
						c.Fatalf("the server was never lost; told %v, paused %v; %v", told, paused, server)
					}
					if server.lost > 0 || server.fails > 0 || server.tr.Buffered() > 64<<10 {
						continue
					}
					n, err := server.tr.Write(message(100_000))
					if total += n; err != nil && !errors.Is(err, weir.ErrClosed) {
						c.Errorf("Write: %v", err)
					}
					if total > 256<<20 {
						c.Fatalf("%d bytes were taken for a peer that has left; told %v, paused %v; %v", total, told, paused, server)
					}
				}
				c.finish()
			}
		}
	}},
	{"25 Reset comes after everything written", needFlush, func(c *streamCase) {
		server, client := c.pair()
		want := message(big)
		client.onMade = func() { client.tr.PauseReading() }
		server.noEOF = true
		c.connect(server, client)
		server.write(want)
		server.reset()
		c.quiet()
		client.resume()
		c.until("the client's end", func() bool { return client.lost > 0 || client.eofs > 0 })
		c.wantBytes(client, want)
		if c.s.Reset {
			c.until("the client lost", func() bool { return client.lost > 0 })
			c.wantReason(client, func(err error) bool { return err != nil }, "an error")
		} else {
			client.close()
		}
		c.allLost()
		c.wantReason(server, isAborted, "ErrAborted")
	}},
	{"25 Reset of an idle connection, and twice", needReset, func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		server.reset()
		server.reset()
		c.allLost()
		c.wantReason(server, isAborted, "ErrAborted")
		c.wantReason(client, func(err error) bool { return err != nil }, "an error")
	}},
	// Above a layer that only passes bytes on the buffer seems always empty; what
	// waits below it counts.
	{"41 WriteDrained waits for what is below", 0, func(c *streamCase) {
		server, client := c.pair()
		const size = 16 << 20
		server.onMade = func() { server.tr.PauseReading() }
		client.onPause = func() {}
		client.onDrain = func() {}
		c.connect(server, client)
		c.quiet()
		before := client.drains // of what was sent by a layer that then stepped aside
		if before > 1 {
			c.Errorf("WriteDrained %d times before anything was written", before)
		}
		client.write(message(size)) // more than the system holds, in one write
		c.quiet()
		if client.pauses != 1 || client.resumes != 0 || client.drains != before || client.tr.Buffered() == 0 {
			c.Errorf("with a peer that does not read: %v; %d bytes buffered", client, client.tr.Buffered())
		}
		server.resume()
		c.until("everything there, and drained", func() bool {
			return len(server.got) == size && client.drains == before+1 && client.resumes == 1
		})
	}},
	{"31 a pause ends with the protocol that asked for it", 0, func(c *streamCase) {
		server, client := c.pair()
		next := c.end("next")
		server.onMade = func() { server.tr.PauseReading() }
		c.connect(server, client)
		client.write([]byte("hello"))
		c.quiet()
		server.alone("SetProtocol", func() { server.tr.SetProtocol(c.takeOver(next, server)) })
		c.until("the bytes", func() bool { return len(next.got) == 5 })
		client.close()
		c.until("the end", func() bool { return next.eofs > 0 })
		next.close()
		c.until("the new one lost", func() bool { return next.lost > 0 })
	}},
	// The new protocol may pause by itself, at once: that pause is its own.
	{"31 the new one's own pause stays", 0, func(c *streamCase) {
		server, client := c.pair()
		next := c.end("next")
		server.onMade = func() { server.tr.PauseReading() }
		c.connect(server, client)
		client.write([]byte("hello"))
		c.quiet()
		server.tr.SetProtocol(c.takeOver(next, server))
		next.tr.PauseReading()
		c.quiet()
		if next.calls != 0 {
			c.Error("DataReceived while paused")
		}
		next.resume()
		c.until("the bytes", func() bool { return len(next.got) == 5 })
		next.abort()
		c.until("the new one lost", func() bool { return next.lost > 0 })
	}},
	{"36 exchanged inside EOFReceived, the tail and the end go to the new one", 0, func(c *streamCase) {
		for _, keep := range []bool{false, true} {
			for _, has := range []bool{false, true} {
				server, client := c.pair()
				next := c.end("next")
				next.noEOF = !has
				server.onData = func([]byte) (int, error) { return 0, nil }
				server.onEOF = func(unused int) (bool, error) {
					if unused != 5 {
						c.Errorf("%d bytes unused, want 5", unused)
					}
					server.tr.SetProtocol(c.takeOver(next, server))
					return keep, nil
				}
				client.onMade = func() { client.write([]byte("hello")); client.close() }
				c.begin(server, client)
				c.until("the tail", func() bool { return len(next.got) == 5 })
				if has {
					c.until("the end", func() bool { return next.eofs == 1 })
					if next.unused != 0 {
						c.Errorf("%d bytes unused", next.unused)
					}
				}
				if has || keep {
					c.quiet()
					if next.lost == 0 {
						next.close()
					}
				}
				c.until("the new one lost", func() bool { return next.lost > 0 })
				c.wantBytes(next, []byte("hello"))
				c.wantClean(next)
				c.allLost()
			}
		}
	}},
	{"36 a new one that pauses gets the end later", 0, func(c *streamCase) {
		server, client := c.pair()
		next := c.end("next")
		next.onData = func([]byte) (int, error) { next.tr.PauseReading(); return 1, nil }
		server.onData = func([]byte) (int, error) { return 0, nil }
		server.onEOF = func(int) (bool, error) {
			server.tr.SetProtocol(c.takeOver(next, server))
			return true, nil
		}
		client.onMade = func() { client.write([]byte("hello")); client.close() }
		c.begin(server, client)
		for i := 1; i <= 5; i++ {
			c.until("a byte", func() bool { return len(next.got) == i })
			c.pass(time.Millisecond)
			if next.eofs != 0 || len(next.got) != i {
				c.Fatalf("while paused: %v", next)
			}
			next.resume()
		}
		c.until("the end", func() bool { return next.eofs == 1 })
		next.close()
		c.until("the new one lost", func() bool { return next.lost > 0 })
		c.wantBytes(next, []byte("hello"))
	}},
}

// reset resets, and checks that nothing is called from inside.
func (e *end) reset() {
	e.t.Helper()
	r, ok := weir.As[weir.Resetter](e.tr)
	if !ok {
		e.t.Fatalf("%s: its transport cannot be reset", e.name)
	}
	e.alone("Reset", func() { e.closed = true; r.Reset() })
}
