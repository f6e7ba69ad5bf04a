package weirtest

import (
	"errors"
	"math"
	"strings"
	"time"

	"github.com/weir-io/weir"
)

// tailTests are behaviours 35 to 38 and R29: bytes that were not used, and
// reading that is paused.
var tailTests = []streamTest{
	// What the protocol left comes in front of what arrives next, once.
	{"35 the tail comes first", 0, func(c *streamCase) {
		server, client := c.pair()
		var seen []string
		server.onData = func(p []byte) (int, error) {
			seen = append(seen, string(p))
			if s := string(p); !strings.HasPrefix("abcdef", s) && !strings.HasPrefix("def", s) {
				c.Errorf("offered %q", s)
			}
			if string(p) == "abcdef" {
				return 6, nil
			}
			return 0, nil
		}
		c.connect(server, client)
		client.write([]byte("abc"))
		c.until("the first piece", func() bool { return len(seen) > 0 && seen[len(seen)-1] == "abc" })
		client.write([]byte("def"))
		c.until("both pieces used", func() bool { return len(server.got) == 6 })
		c.wantBytes(server, []byte("abcdef"))
	}},
	// A parser takes one message per call; it must not have to loop, nor wait
	// for bytes that never come.
	{"35 called again at once while bytes are used", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onData = func(p []byte) (int, error) { return min(len(p), 3), nil }
		c.connect(server, client)
		client.write(message(3000))
		c.until("all used", func() bool { return len(server.got) == 3000 })
		c.wantBytes(server, message(3000))
		if server.calls < 1000 {
			c.Errorf("%d calls used 3000 bytes by three", server.calls)
		}
	}},
	{"35 nothing used waits for more without spinning", needClear, func(c *streamCase) {
		server, client := c.pair()
		last := 0
		server.onData = func(p []byte) (int, error) {
			if len(p) <= last {
				c.Errorf("called with %d bytes again", len(p))
			}
			last = len(p)
			return 0, nil
		}
		c.connect(server, client)
		client.write(message(100))
		c.until("the first bytes", func() bool { return last == 100 })
		calls := server.calls
		c.quiet()
		if server.calls != calls {
			c.Errorf("%d more calls without new bytes", server.calls-calls)
		}
		client.write(message(1))
		c.until("the next byte", func() bool { return last == 101 })
	}},
	{"35 used out of range", 0, func(c *streamCase) {
		for _, n := range []int{-1, math.MinInt, 1, 2, math.MaxInt - 100} {
			server, client := c.pair()
			size := 0
			bad := n
			server.onData = func(p []byte) (int, error) {
				size = len(p)
				if n > 0 {
					bad = len(p) + n
				}
				return bad, nil
			}
			c.connect(server, client)
			client.write([]byte("abc"))
			c.until("the server lost", func() bool { return server.lost > 0 })
			c.wantReason(server, func(err error) bool {
				var u *weir.UsedError
				return errors.As(err, &u) && u.N == bad && u.Len == size
			}, "*UsedError")
			if server.calls != 1 {
				c.Errorf("DataReceived %d times", server.calls)
			}
		}
	}},
	{"35 an error loses the connection with it", 0, func(c *streamCase) {
		for _, n := range []int{0, 1, 3} {
			server, client := c.pair()
			server.onData = func(p []byte) (int, error) { return min(n, len(p)), errScript }
			c.connect(server, client)
			client.write([]byte("abc"))
			c.until("the server lost", func() bool { return server.lost > 0 })
			c.wantReason(server, isScript, "the protocol's error")
			if server.calls != 1 {
				c.Errorf("DataReceived %d times", server.calls)
			}
		}
	}},
	// A tail larger than a read buffer, because the parser keeps waiting for more.
	{"35 a tail over many reads", 0, func(c *streamCase) {
		server, client := c.pair()
		want := message(200_000)
		server.onData = func(p []byte) (int, error) {
			if len(p) < 100_000 {
				return 0, nil
			}
			return 100_000, nil
		}
		client.onMade = func() { client.write(want); client.close() }
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		c.wantBytes(server, want)
	}},
	{"36 the tail is offered once more before the end", 0, func(c *streamCase) {
		server, client := c.pair()
		last, same := "", 0
		server.onData = func(p []byte) (int, error) {
			if string(p) == last {
				same++
			}
			last = string(p)
			return 0, nil
		}
		client.onMade = func() { client.write([]byte("rest")); client.close() }
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 })
		if last != "rest" || same != 1 || server.unused != 4 {
			c.Errorf("offered %q, %d times more, %d bytes said to be unused", last, same, server.unused)
		}
		server.close()
		c.allLost()
		c.wantClean(server)
	}},
	{"36 the end without EOFReceived and unused bytes", 0, func(c *streamCase) {
		server, client := c.pair()
		server.noEOF = true
		server.onData = func([]byte) (int, error) { return 0, nil }
		client.onMade = func() { client.write([]byte("rest")); client.close() }
		c.begin(server, client)
		c.allLost()
		c.wantReason(server, isUnused(4), unusedWant(4))
	}},
	{"36 EOFReceived answers false with unused bytes", 0, func(c *streamCase) {
		server, client := c.pair()
		server.keepOpen = false
		server.onData = func([]byte) (int, error) { return 0, nil }
		client.onMade = func() { client.write([]byte("rest")); client.close() }
		c.begin(server, client)
		c.allLost()
		c.wantReason(server, isUnused(4), unusedWant(4))
	}},
	{"36 the last offer is used", 0, func(c *streamCase) {
		server, client := c.pair()
		server.keepOpen = false
		last := ""
		server.onData = func(p []byte) (int, error) {
			if string(p) == last {
				return len(p), nil
			}
			last = string(p)
			return 0, nil
		}
		client.onMade = func() { client.write([]byte("rest")); client.close() }
		c.begin(server, client)
		c.allLost()
		c.wantBytes(server, []byte("rest"))
		c.wantClean(server)
		if server.unused != 0 {
			c.Errorf("%d bytes said to be unused", server.unused)
		}
	}},
	// A parser that never finds its delimiter must not eat all memory.
	{"37 the unused tail is bounded", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onData = func([]byte) (int, error) { return 0, nil }
		c.connect(server, client, weir.WithTailLimit(1000))
		client.write(message(5000))
		c.until("the server lost", func() bool { return server.lost > 0 })
		c.wantReason(server, func(err error) bool {
			var e *weir.TailError
			return errors.As(err, &e) && e.Limit == 1000 && e.Unused > 1000 && strings.Contains(err.Error(), "1000")
		}, "*TailError that names the limit")
	}},
	{"37 a tail of the limit is allowed", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onData = func([]byte) (int, error) { return 0, nil }
		client.onMade = func() { client.write(message(1000)); client.close() }
		c.begin(server, client, weir.WithTailLimit(1000))
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		if server.unused != 1000 {
			c.Errorf("%d bytes unused, want 1000 (%v)", server.unused, server.err)
		}
	}},
	{"38 PauseReading inside DataReceived withholds the rest", 0, func(c *streamCase) {
		server, client := c.pair()
		paused := false
		server.onData = func(p []byte) (int, error) {
			if paused {
				c.Error("DataReceived while paused")
			}
			paused = true
			server.tr.PauseReading()
			return 1, nil
		}
		want := message(50)
		client.onMade = func() { client.write(want); client.close() }
		c.begin(server, client)
		for i := range want {
			c.until("a byte", func() bool { return len(server.got) > i || server.lost > 0 })
			if i == 0 {
				c.quiet()
			}
			if server.eofs != 0 || len(server.got) != i+1 {
				c.Fatalf("%s after byte %d", server, i)
			}
			paused = false
			server.resume()
		}
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		c.wantBytes(server, want)
	}},
	{"38 pausing in ConnectionMade holds", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onMade = func() { server.tr.PauseReading() }
		client.onMade = func() { client.write([]byte("x")) }
		c.begin(server, client)
		c.until("the server connected", func() bool { return server.made > 0 })
		c.quiet()
		if server.calls != 0 {
			c.Error("DataReceived while paused")
		}
		server.resume()
		c.until("the data", func() bool { return len(server.got) == 1 })
	}},
	{"38 pausing holds the end of stream too", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onMade = func() { server.tr.PauseReading() }
		client.onMade = func() { client.close() }
		c.begin(server, client)
		c.until("the server connected", func() bool { return server.made > 0 })
		c.quiet()
		if server.eofs != 0 || server.lost != 0 {
			c.Errorf("while paused: %s", server)
		}
		server.resume()
		c.until("the end", func() bool { return server.eofs > 0 })
	}},
	// A transport does not count who pauses: a pause is a state, not a number.
	{"38 both calls are idempotent", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onMade = func() {
			server.tr.ResumeReading()
			server.tr.PauseReading()
			server.tr.PauseReading()
			server.resume()
			server.resume()
		}
		client.onMade = func() { client.write([]byte("x")) }
		c.begin(server, client)
		c.until("the data", func() bool { return len(server.got) == 1 })
	}},
	{"38 pause and resume inside DataReceived", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onData = func(p []byte) (int, error) {
			server.tr.PauseReading()
			server.resume()
			return 1, nil
		}
		want := message(100)
		client.onMade = func() { client.write(want); client.close() }
		c.begin(server, client)
		c.until("the end", func() bool { return server.eofs > 0 || server.lost > 0 })
		c.wantBytes(server, want)
	}},
	// A paused connection costs nothing: no callback, and the peer is held up.
	{"38 a paused reader holds up its peer", 0, func(c *streamCase) {
		server, client := c.pair()
		server.onMade = func() { server.tr.PauseReading() }
		client.onPause = func() {}
		c.connect(server, client)
		// The system takes some of it, at once or a little later; then it is over.
		for range 64 {
			if client.pauses == client.resumes {
				client.write(message(1 << 20))
			}
			c.pass(5 * time.Millisecond)
		}
		if server.calls != 0 || client.pauses != client.resumes+1 {
			c.Errorf("%s; %s", server, client)
		}
	}},
}
