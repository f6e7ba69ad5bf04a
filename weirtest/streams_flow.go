package weirtest

import (
	"errors"
	"time"

	"github.com/weir-io/weir"
)

// flowTests are behaviours 39 to 41 and 43, R30: the write buffer, its marks,
// and who is told of them.
var flowTests = []streamTest{
	{"39 PauseWriting inside the Write that crossed, ResumeWriting at the low mark", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onMade = func() { server.tr.PauseReading() }
		inWrite := false
		client.onPause = func() {
			if !inWrite {
				c.Error("PauseWriting not inside Write")
			}
			if n := client.tr.Buffered(); n <= 50_000 {
				c.Errorf("paused with %d bytes, the high mark is 50,000", n)
			}
			if n := client.tr.Room(); n != 0 {
				c.Errorf("paused with room for %d bytes", n)
			}
		}
		client.onResume = func() {
			if n := client.tr.Buffered(); n > 20_000 {
				c.Errorf("resumed with %d bytes, the low mark is 20,000", n)
			}
			if n, held := client.tr.Room(), client.tr.Buffered(); n != 50_000-held {
				c.Errorf("resumed with %d bytes and room for %d", held, n)
			}
		}
		c.connect(server, client)
		if err := client.tr.SetWriteMarks(50_000, 20_000); err != nil {
			c.Fatal(err)
		}
		write := func(n int) {
			inWrite = true
			client.write(message(n))
			inWrite = false
		}
		total := 0
		for client.pauses == 0 && total < 64<<20 {
			room := client.tr.Room()
			if held := client.tr.Buffered(); room != 50_000-held {
				c.Errorf("%d bytes are buffered, and there is room for %d", held, room)
			}
			write(10_000)
			total += 10_000
			if client.pauses > 0 && client.tr.Buffered() <= 50_000 && room >= 10_000 {
				c.Errorf("paused, with room for %d bytes before", room)
			}
		}
		write(10_000) // over the mark already: not told again
		total += 10_000
		if client.pauses != 1 {
			c.Errorf("paused %d times", client.pauses)
		}
		server.resume()
		c.until("everything to arrive", func() bool { return len(server.got) == total })
		c.until("the resume", func() bool { return client.resumes == 1 })
	}},
	{"39 pause and resume alternate", 0, func(c *streamCase) {
		server, client := c.pair()
		const size = 8 << 20
		sent := 0
		fill := func() {
			for client.pauses == client.resumes && sent < size {
				client.write(message(32 << 10))
				sent += 32 << 10
			}
			if sent == size && !client.closed {
				client.close()
			}
		}
		client.onMade, client.onResume = fill, fill
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		if len(server.got) != size {
			c.Errorf("%d of %d bytes", len(server.got), size)
		}
	}},
	{"39 WriteDrained each time the buffer becomes empty", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onDrain = func() {
			if client.drains < 5 {
				client.write(message(100_000))
			}
		}
		client.onMade = func() { client.write([]byte("x")) }
		c.begin(server, client)
		c.until("everything", func() bool { return len(server.got) == 400_001 && client.drains == 5 })
	}},
	{"39 WriteDrained after ResumeWriting", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onResume = func() {
			if client.drains != 0 {
				c.Error("drained before it was resumed")
			}
		}
		client.onDrain = func() {}
		client.onMade = client.flood
		c.begin(server, client)
		c.until("drained", func() bool { return client.drains > 0 })
		if client.resumes != 1 {
			c.Errorf("resumed %d times", client.resumes)
		}
	}},
	// Recursion here is a stack that grows with the other side's speed.
	{"40 ResumeWriting that writes again does not recurse", 0, func(c *streamCase) {
		server, client := c.pair()
		depth, rounds := 0, 0
		client.onPause = func() {}
		client.onResume = func() {
			if depth++; depth > 1 {
				c.Error("ResumeWriting from inside ResumeWriting")
			}
			if rounds++; rounds <= 10 {
				client.flood()
			} else if !client.closed {
				client.close()
			}
			depth--
		}
		client.onMade = client.flood
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		if len(server.got) != client.flooded || rounds != 11 {
			c.Errorf("%d of %d bytes arrived in %d rounds", len(server.got), client.flooded, rounds)
		}
	}},
	{"40 ResumeWriting that writes to another transport", 0, func(c *streamCase) {
		server, client := c.pair()
		server2, client2 := c.pair()
		c.connect(server2, client2)
		client.onPause = func() {}
		client.onResume = func() { client2.write(message(300_000)); client2.close() }
		client.onMade = client.flood
		c.begin(server, client)
		c.until("the other's bytes", func() bool { return server2.eofs > 0 || server2.lost > 0 })
		c.wantBytes(server2, message(300_000))
	}},
	{"40 WriteDrained that writes to both transports", 0, func(c *streamCase) {
		server, client := c.pair()
		server2, client2 := c.pair()
		c.connect(server2, client2)
		client.onDrain = func() {
			if client.drains == 1 {
				client.write([]byte("more"))
				client2.write([]byte("other"))
			}
		}
		client.onMade = func() { client.write([]byte("some")) }
		c.begin(server, client)
		c.until("both", func() bool { return len(server.got) == 8 && len(server2.got) == 5 })
		c.wantBytes(server, []byte("somemore"))
	}},
	{"41 marks are validated", 0, func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		var set [2]int
		for _, m := range []struct {
			high, low int
			ok        bool
		}{{0, 0, true}, {10, 10, true}, {10, 0, true}, {10, 11, false}, {-1, -1, false}, {10, -1, false}, {0, 1, false}} {
			err := client.tr.SetWriteMarks(m.high, m.low)
			if m.ok != (err == nil) || !m.ok && !errors.Is(err, weir.ErrBadMarks) {
				c.Errorf("SetWriteMarks(%d, %d): %v", m.high, m.low, err)
			}
			if m.ok {
				set = [2]int{m.high, m.low}
			}
			if high, low := client.tr.WriteMarks(); [2]int{high, low} != set {
				c.Errorf("the marks are %d and %d, want %d", high, low, set)
			}
		}
	}},
	{"41 high mark 0", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onPause = func() {
			if client.tr.Buffered() == 0 {
				c.Error("paused with nothing buffered")
			}
		}
		client.onResume = func() {
			if n := client.tr.Buffered(); n != 0 {
				c.Errorf("resumed with %d bytes buffered, the low mark is 0", n)
			}
		}
		c.connect(server, client)
		if err := client.tr.SetWriteMarks(0, 0); err != nil {
			c.Fatal(err)
		}
		client.flood()
		if client.pauses != 1 {
			c.Errorf("paused %d times", client.pauses)
		}
		c.until("everything", func() bool { return len(server.got) == client.flooded && client.resumes == client.pauses })
	}},
	{"41 the default marks are 64 KiB and a quarter", 0, func(c *streamCase) {
		server, client := c.pair()
		fill(c, server, client)
		client.onResume = nil
		// What the system had room for after all is written again.
		for total := 0; client.tr.Buffered() <= 64<<10; {
			if n := client.tr.Buffered(); n < 64<<10 {
				if total += 64<<10 - n; total > 256<<20 {
					c.Fatal("the system takes everything")
				}
				client.write(message(64<<10 - n))
			} else if _, err := client.tr.Writev([][]byte{nil, {1}}); err != nil { // vectored writes count
				c.Fatal(err)
			}
			if client.pauses != 0 && client.tr.Buffered() <= 64<<10 {
				c.Fatal("paused at the high mark; it is due above it")
			}
		}
		if client.pauses != 1 {
			c.Error("not paused above 64 KiB")
		}
		at := -1
		client.onResume = func() { at = client.tr.Buffered() }
		server.resume()
		c.until("the resume", func() bool { return at >= 0 })
		if at > 16<<10 {
			c.Errorf("resumed with %d bytes", at)
		}
	}},
	{"41 marks by option", 0, func(c *streamCase) {
		server, client := c.pair()
		client.onPause = func() {
			if n := client.tr.Buffered(); n <= 100 || n > c.g3(300) {
				c.Errorf("paused with %d bytes, the high mark is 100 and a write 200 (%d)", n, c.g3(300))
			}
		}
		at := -1
		client.onResume = func() { at = client.tr.Buffered() }
		server.onMade = func() { server.tr.PauseReading() }
		c.connect(server, client, weir.WithWriteMarks(100, 50))
		for n := 0; client.pauses == 0 && n < 256<<20; n += 200 {
			client.write(message(200))
		}
		server.resume()
		c.until("the resume", func() bool { return at >= 0 })
		if at > 50 {
			c.Errorf("resumed with %d bytes, the low mark is 50", at)
		}
	}},
	{"41 raising and lowering the marks", 0, func(c *streamCase) {
		server, client := c.pair()
		fill(c, server, client)
		set := func(high, low int) {
			if err := client.tr.SetWriteMarks(high, low); err != nil {
				c.Error(err)
			}
		}
		set(0, 0) // something is buffered: over it now
		for client.tr.Buffered() == 0 {
			// The system had room for it after all.
			set(64<<10, 16<<10)
			fillMore(c, client)
			set(0, 0)
		}
		if client.pauses != 1 {
			c.Errorf("paused %d times with %d bytes over a mark of 0", client.pauses, client.tr.Buffered())
		}
		set(1<<20, 1<<20) // and now under the low one
		c.until("the resume", func() bool { return client.resumes == 1 })
	}},
	// A peer that sends and never reads must not fill our memory through an echo
	// that ignores the marks.
	{"43 an echo without PauseWriting stops reading", 0, func(c *streamCase) {
		server, client := c.pair()
		most := 0
		server.onData = func(p []byte) (int, error) {
			n, err := server.tr.Write(p)
			most = max(most, server.tr.Buffered())
			return n, err
		}
		client.onMade = func() { client.tr.PauseReading(); client.write(message(16 << 20)) }
		c.begin(server, client)
		c.until("the echo started", func() bool { return server.calls > 0 })
		c.pass(50 * time.Millisecond)
		if len(server.got) == 16<<20 || most > 64<<10+256<<10 {
			c.Errorf("the server took %d bytes and buffered up to %d for a client that does not read", len(server.got), most)
		}
		client.resume()
		c.until("everything back", func() bool { return len(client.got) == 16<<20 })
		c.wantBytes(client, message(16<<20))
	}},
	{"43 a writer that heeds the marks to a slow reader", 0, func(c *streamCase) {
		server, client := c.pair()
		const piece, size = 10_000, 3_000_000
		sent, most := 0, 0
		work := func() {
			for client.pauses == client.resumes && sent < size {
				client.write(message(piece))
				sent += piece
				most = max(most, client.tr.Buffered())
			}
			if sent >= size && !client.closed {
				client.close()
			}
		}
		client.onMade, client.onResume = work, work
		server.onData = func(p []byte) (int, error) {
			server.tr.PauseReading()
			server.tr.Loop().After(100*time.Microsecond, server.resume)
			return len(p), nil
		}
		c.begin(server, client, weir.WithWriteMarks(40_000, 10_000))
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		if len(server.got) != sent {
			c.Errorf("%d of %d bytes arrived", len(server.got), sent)
		}
		if bound := c.g3(40_000 + piece); most > bound {
			c.Errorf("%d bytes buffered; the high mark plus one write is %d (G3)", most, bound)
		}
	}},
	// Symmetric protocols (R7): relays lock up when both directions are full at
	// once.
	{"43 both directions at once", 0, func(c *streamCase) {
		server, client := c.pair()
		want := message(big)
		for _, e := range []*end{server, client} {
			e.onPause = func() {}
			e.onMade = func() { e.write(want); e.tr.PauseReading() }
		}
		c.connect(server, client)
		server.resume()
		client.resume()
		c.until("everything", func() bool { return len(server.got) == big && len(client.got) == big })
		c.wantBytes(server, want)
		c.wantBytes(client, want)
	}},
	// Only replies stop reading: two ends that write of their own accord, more
	// than all buffers hold, would otherwise wait for each other forever.
	{"43 both directions at once, without PauseWriting", 0, func(c *streamCase) {
		server, client := c.pair()
		want := message(16 << 20)
		for _, e := range []*end{server, client} {
			e.onMade = func() { e.write(want) }
		}
		c.begin(server, client)
		c.until("everything", func() bool { return len(server.got) == len(want) && len(client.got) == len(want) })
		c.wantBytes(server, want)
		c.wantBytes(client, want)
	}},
	{"43 an echo that greets with much stops reading", 0, func(c *streamCase) {
		server, client := c.pair()
		const greeting, size = 8 << 20, 16 << 20
		most := 0
		server.onMade = func() { server.write(message(greeting)) }
		server.onData = func(p []byte) (int, error) {
			n, err := server.tr.Write(p)
			most = max(most, server.tr.Buffered())
			return n, err
		}
		client.onMade = func() { client.tr.PauseReading(); client.write(message(size)) }
		c.begin(server, client)
		c.until("the echo started", func() bool { return server.calls > 0 })
		c.pass(50 * time.Millisecond)
		if len(server.got) == size || most > greeting+64<<10+256<<10 {
			c.Errorf("the server took %d bytes and buffered up to %d for a client that does not read", len(server.got), most)
		}
		client.resume()
		c.until("everything back", func() bool { return len(client.got) == greeting+size })
	}},
}

// fill connects two ends and writes to the server, which does not read, until
// the system seems to take no more: up to 20,000 bytes stay in the client's buffer.
// A system that is slow may still take them later.
func fill(c *streamCase, server, client *end) {
	c.Helper()
	server.onMade = func() { server.tr.PauseReading() }
	client.onPause = func() {}
	c.connect(server, client)
	fillMore(c, client)
}

// fillMore is fill for two ends that are connected.
func fillMore(c *streamCase, client *end) {
	c.Helper()
	full, enough := 0, 3
	if c.s.Opaque {
		enough = 20 // a layer may only be slow
	}
	for total := 0; full < enough; { // full for some time, not for a moment
		if client.tr.Buffered() == 0 {
			client.write(message(20_000))
			if total += 20_000; total > 256<<20 {
				c.Fatal("the system takes everything")
			}
		}
		before := client.tr.Buffered()
		c.pass(2 * time.Millisecond)
		if n := client.tr.Buffered(); n == 0 || n < before {
			full = 0
		} else {
			full++
		}
	}
	if client.pauses != 0 {
		c.Fatal("paused with 20,000 bytes")
	}
}

// halfCloseTests are behaviours 44 to 47.
var halfCloseTests = []streamTest{
	{"44 WriteEOF flushes, sends the end, and reading goes on", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		want := message(1 << 20)
		client.onMade = func() {
			client.write(want)
			for range 3 { // calling it again has no effect
				client.writeEOF()
			}
			if _, err := client.tr.Write([]byte("x")); !errors.Is(err, weir.ErrWriteAfterEOF) {
				c.Errorf("Write after WriteEOF: %v", err)
			}
			if _, err := client.tr.Writev([][]byte{{1}}); !errors.Is(err, weir.ErrWriteAfterEOF) {
				c.Errorf("Writev after WriteEOF: %v", err)
			}
		}
		c.begin(server, client)
		c.until("the client's end at the server", func() bool { return server.eofs > 0 })
		c.wantBytes(server, want)
		server.write(want)
		c.until("the reply", func() bool { return len(client.got) == len(want) })
		c.wantBytes(client, want)
		server.writeEOF()
		c.allLost()
		c.wantClean(server, client)
		if client.eofs != 1 || server.eofs != 1 {
			c.Errorf("ends: %d, %d", client.eofs, server.eofs)
		}
	}},
	{"44 both ends half-close at once", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		for _, e := range []*end{server, client} {
			e.onMade = func() { e.write([]byte("bye")); e.writeEOF() }
		}
		c.begin(server, client)
		c.allLost()
		c.until("both", func() bool { return server.lost > 0 && client.lost > 0 })
		c.wantBytes(server, []byte("bye"))
		c.wantBytes(client, []byte("bye"))
		c.wantClean(server, client)
	}},
	{"44 Close after WriteEOF", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		want := message(big)
		server.keepOpen = false
		client.onMade = func() { client.write(want); client.writeEOF(); client.close() }
		c.begin(server, client)
		c.until("both lost", func() bool { return server.lost > 0 && client.lost > 0 })
		c.wantBytes(server, want)
		c.wantClean(server, client)
	}},
	{"44 Close long after WriteEOF", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() { client.write([]byte("bye")); client.writeEOF() }
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 })
		client.close()
		c.until("the client lost", func() bool { return client.lost > 0 })
		server.close()
		c.until("both lost", func() bool { return server.lost > 0 })
		c.wantBytes(server, []byte("bye"))
		c.wantClean(server, client)
	}},
	{"44 WriteEOF with reading paused", needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		client.onMade = func() { client.tr.PauseReading(); client.write([]byte("x")); client.writeEOF() }
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 })
		server.write([]byte("y"))
		server.close()
		c.quiet()
		if client.calls != 0 || client.lost != 0 {
			c.Errorf("while paused: %s", client)
		}
		client.resume()
		c.allLost()
		c.wantBytes(client, []byte("y"))
		c.wantClean(server, client)
	}},
	{"45 asked beforehand", 0, func(c *streamCase) {
		server, client := c.pair()
		c.connect(server, client)
		for _, e := range []*end{server, client} {
			if e.tr.CanWriteEOF() != c.s.HalfClose {
				c.Errorf("%s: CanWriteEOF is %v", e.name, e.tr.CanWriteEOF())
			}
		}
		if !c.s.HalfClose {
			if err := client.tr.WriteEOF(); !errors.Is(err, weir.ErrNoHalfClose) {
				c.Errorf("WriteEOF: %v", err)
			}
			client.write([]byte("still open"))
			c.until("bytes after it", func() bool { return len(server.got) == 10 })
		}
	}},
	{"46 EOFReceived fails", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onEOF = func(int) (bool, error) { return true, errScript }
		client.onMade = func() { client.close() }
		c.begin(server, client)
		c.until("the server lost", func() bool { return server.lost > 0 })
		c.wantReason(server, isScript, "the protocol's error")
	}},
	{"47 half-close after the peer's reset", needReset | needHalfClose, func(c *streamCase) {
		server, client := c.pair()
		server.onMade = func() { server.tr.PauseReading() }
		c.connect(server, client)
		client.abort()
		c.quiet()
		if server.lost == 0 {
			// Whether or not the loop knows already, the result is nil or ErrClosed.
			if err := server.tr.WriteEOF(); err != nil && !errors.Is(err, weir.ErrClosed) {
				c.Errorf("WriteEOF: %v", err)
			}
			c.quiet()
		}
		if server.lost == 0 {
			server.resume()
		}
		c.allLost()
		c.wantReason(server, isReset, "ECONNRESET")
	}},
}
