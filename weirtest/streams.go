package weirtest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// Streams is what one case of TestStreams runs on: the loops of two ends and a
// way to connect them. Everything in it is used on the test's goroutine.
type Streams struct {
	// Server and Client are the loops of the two ends; they may be one.
	Server, Client *weir.Loop
	// Connect begins a connection between client and a protocol that server
	// makes. opts, of weir.Listen and weir.Connect, hold for both ends. The two
	// need not be connected when it returns: Until does that.
	Connect func(server weir.Factory, client weir.Protocol, opts ...weir.StreamOption)
	// Until turns the loops until done returns true, and reports whether that
	// happened within a bound of its own: some seconds of real time, or hours of
	// simulated time.
	Until func(done func() bool) bool

	// HalfClose says that an end can end its writing and go on reading.
	HalfClose bool
	// Reset says that Abort of one end reaches the other as ECONNRESET.
	Reset bool
	// Unnoticed says that a peer that has gone goes unnoticed while neither end reads: the
	// system does not tell, as that of vsock.
	Unnoticed bool
	// Forgets says that an abort before the connection was accepted may reach the server as
	// an end: the system forgets the reason, as that of SCTP does.
	Forgets bool
	// Opaque says that layers hold bytes up on their way, so that the cases which
	// count deliveries exactly do not apply.
	Opaque bool
	// HangsUp says that closing an end takes back what it wrote and the other has not read,
	// as closing one end of a terminal does.
	HangsUp bool
	// Watched says that an end whose peer has closed is lost with EPIPE even if it has nothing
	// to write, as two pipes are (Loop.AttachPair).
	Watched bool
	// Descriptor, if it is set, makes descriptors that writes pass to the other end, over
	// UNIX sockets; the protocols of the cases then take descriptors, and close them.
	Descriptor func() int
}

// Maker makes what one case runs on. It leaves cleaning up to t.Cleanup, and
// skips what the platform lacks.
type Maker func(t *testing.T) *Streams

// TestStreams checks what every stream transport promises (behaviours 20 to 47)
// on what maker makes, each promise as a subtest of its own. Each of them also
// checks the order of callbacks, the balance of pauses, and that no callback
// comes from inside the call that caused it.
func TestStreams(t *testing.T, maker Maker) {
	for _, group := range [][]streamTest{lifeTests, endTests, tailTests, flowTests, producerTests, halfCloseTests, panicTests, failTests} {
		for _, st := range group {
			t.Run(st.name, func(t *testing.T) {
				s := maker(t)
				c := &streamCase{T: t, s: s}
				if st.needs&needHalfClose != 0 && !s.HalfClose {
					t.Skip("no half-close")
				}
				if st.needs&needReset != 0 && !s.Reset {
					t.Skip("a reset cannot be seen")
				}
				if st.needs&needNotice != 0 && s.Unnoticed {
					t.Skip("a peer that has gone is not noticed while bytes are unread")
				}
				if st.needs&needReason != 0 && s.Forgets {
					t.Skip("an abort before the accept may be forgotten")
				}
				if st.needs&needFlush != 0 && s.HangsUp {
					t.Skip("closing an end takes back what was not read")
				}
				if st.needs&needClear != 0 && s.Opaque {
					t.Skip("layers hold bytes up")
				}
				st.run(c)
				c.finish()
			})
		}
	}
}

// streamTest is one case. Its name begins with the number of the behaviour that
// it checks.
type streamTest struct {
	name  string
	needs need
	run   func(c *streamCase)
}

type need uint8

const (
	needHalfClose need = 1 << iota
	needReset
	needClear
	needNotice
	needReason
	needFlush
)

// streamCase is a case that runs.
type streamCase struct {
	*testing.T
	s    *Streams
	ends []*end
}

// end makes an end. Its hooks are set before it is connected.
func (c *streamCase) end(name string) *end {
	e := &end{t: c.T, name: name, hooks: hooks{keepOpen: true}, descriptor: c.s.Descriptor}
	c.ends = append(c.ends, e)
	return e
}

// pair makes two ends.
func (c *streamCase) pair() (server, client *end) { return c.end("server"), c.end("client") }

// connect connects two ends and waits until both are.
func (c *streamCase) connect(server, client *end, opts ...weir.StreamOption) {
	c.Helper()
	c.begin(server, client, opts...)
	c.until("both ends connected", func() bool { return server.made > 0 && client.made > 0 })
}

// begin is connect without the waiting.
func (c *streamCase) begin(server, client *end, opts ...weir.StreamOption) {
	c.Helper()
	server.begun, client.begun = true, true
	c.s.Connect(func(weir.Transport) weir.Protocol { return server.protocol() }, client.protocol(), opts...)
}

// until turns the loops until cond holds.
func (c *streamCase) until(what string, cond func() bool) {
	c.Helper()
	if !c.s.Until(cond) {
		for _, e := range c.ends {
			c.Log(e)
		}
		c.Fatal("waited in vain for: " + what)
	}
}

// allLost waits until every end that was connected is lost; for an end that may
// never be made, only if it was made.
func (c *streamCase) allLost() {
	c.Helper()
	c.until("every end lost", func() bool {
		for _, e := range c.ends {
			if e.begun && e.lost == 0 && (e.made > 0 || !e.maybe) {
				return false
			}
		}
		return true
	})
}

// quiet lets time pass in which something must not happen.
func (c *streamCase) quiet() {
	c.Helper()
	c.pass(20 * time.Millisecond)
}

func (c *streamCase) pass(d time.Duration) {
	c.Helper()
	left := 2
	c.s.Server.After(d, func() { left-- })
	c.s.Client.After(d, func() { left-- })
	c.until("time to pass", func() bool { return left == 0 })
}

// finish ends what a case left open, and checks that nothing remains (G6) and
// that nothing comes after the end (G1).
func (c *streamCase) finish() {
	c.Helper()
	if c.Failed() {
		return
	}
	// An end that may never be made may also be made late.
	aborted := map[*end]bool{}
	c.until("every end lost and no connection left in the loops", func() bool {
		for _, e := range c.ends {
			if e.made > 0 && e.lost == 0 && !aborted[e] {
				aborted[e] = true
				e.abort()
			}
			if e.begun && e.lost == 0 && (e.made > 0 || !e.maybe) {
				return false
			}
		}
		return c.s.Server.Connections() == 0 && c.s.Client.Connections() == 0
	})
	c.pass(time.Millisecond)
}

// wantReason checks why an end was lost.
func (c *streamCase) wantReason(e *end, ok func(error) bool, want string) {
	c.Helper()
	if e.lost == 0 {
		c.Errorf("%s: not lost", e.name)
	} else if !ok(e.err) {
		c.Errorf("%s: lost with %v (%T), want %s", e.name, e.err, e.err, want)
	}
}

func (c *streamCase) wantClean(ends ...*end) {
	c.Helper()
	for _, e := range ends {
		c.wantReason(e, func(err error) bool {
			return err == nil || c.s.Watched && (e.eofs > 0 || e.noEOF) && errors.Is(err, syscall.EPIPE)
		}, "nil")
	}
}

// g3 is how many bytes may be buffered if the high mark plus one write are n:
// above layers bytes count as they wait there, encrypted and framed.
func (c *streamCase) g3(n int) int {
	if c.s.Opaque {
		return withOverhead(n)
	}
	return n
}

func (c *streamCase) wantBytes(e *end, want []byte) {
	c.Helper()
	if bytes.Equal(e.got, want) {
		return
	}
	i := 0
	for i < min(len(e.got), len(want)) && e.got[i] == want[i] {
		i++
	}
	c.Errorf("%s: got %d bytes, want %d; they differ from byte %d on", e.name, len(e.got), len(want), i)
}

// message is n bytes that show their position and that no layer can compress:
// cases that fill every buffer on the way rely on that. A loop over the bytes
// would take most of the suite's time under the race detector, which does not see
// a cipher's loop.
func message(n int) []byte {
	p := make([]byte, n)
	block, err := aes.NewCipher(make([]byte, aes.BlockSize))
	if err != nil {
		panic(err)
	}
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(p, p)
	return p
}

// LoopStreams returns a Maker of connections on one loop that is made with
// opts: network is "tcp", "unix", "pair", a pair of sockets, "sctp" or "vsock".
func LoopStreams(network string, opts ...weir.LoopOption) Maker {
	return func(t *testing.T) *Streams {
		opts := append([]weir.LoopOption{weir.WithErrorHandler(func(err error) { t.Log("reported: ", firstLine(err)) })}, opts...)
		l, err := weir.NewLoop(opts...)
		if err != nil {
			t.Fatal(err)
		}
		// Until makes turn after turn, which must all come from one thread if the
		// backend is bound to it.
		runtime.LockOSThread()
		t.Cleanup(func() {
			defer runtime.UnlockOSThread()
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		bound := streamsBound
		if network == "sctp" || network == "vsock" {
			bound = emulatedBound
		}
		s := &Streams{
			Server: l, Client: l,
			Until: func(done func() bool) bool { return turnUntil(t, l, bound, done) },
			// A pair of sockets reports what an abort left unread as a reset,
			// and otherwise an end.
			HalfClose: network != "sctp", Reset: network == "tcp" || network == "sctp",
			Unnoticed: network == "vsock", Forgets: network == "sctp",
		}
		n := 0
		dir := ""
		s.Connect = func(server weir.Factory, client weir.Protocol, opts ...weir.StreamOption) {
			t.Helper()
			if network == "pair" {
				if _, _, err := l.SocketPair(server, func(weir.Transport) weir.Protocol { return client }, opts...); err != nil && !errors.Is(err, weir.ErrClosed) {
					t.Fatal(err)
				}
				return
			}
			address := "127.0.0.1:0"
			switch network {
			case "unix":
				if dir == "" {
					dir = t.TempDir()
				}
				n++
				address = fmt.Sprintf("%s/%d", dir, n)
			case "vsock":
				address = "local:0"
			}
			ln, err := l.Listen(network, address, server, weir.JoinOptions(opts...))
			if err != nil {
				t.Fatal(err)
			}
			l.Connect(network, ln.Addr().String(), client, weir.JoinOptions(opts...))
		}
		return s
	}
}

// How long a case may wait on real sockets. The kernels that have SCTP and vsock are mostly
// emulated, on a machine that has other work.
const (
	streamsBound  = time.Minute
	emulatedBound = 5 * time.Minute
)

// turnUntil turns l until done returns true or the bound has passed.
func turnUntil(t testing.TB, l *weir.Loop, most time.Duration, done func() bool) bool {
	late := false
	bound := l.After(most, func() { late = true })
	defer bound.Stop()
	for !done() {
		if late {
			return false
		}
		// A turn runs callbacks and then waits: what they did must be checked before
		// that. A timer can still come due in between, hence the bound.
		wait := 20 * time.Millisecond
		if d, ok := l.Next(); ok && d == 0 {
			wait = 0
		}
		if err := l.Turn(wait); err != nil {
			t.Error(err)
			return false
		}
	}
	return true
}

func firstLine(err error) string {
	s, _, _ := bytes.Cut([]byte(err.Error()), []byte("\n"))
	return string(s)
}

// Layered is maker with layers put on both ends: server turns the factory into
// the one that the listener gets, client turns the protocol into the one that
// connects. Either may add layers, or none.
func Layered(maker Maker, server func(weir.Factory) weir.Factory, client func(weir.Protocol) weir.Protocol) Maker {
	return func(t *testing.T) *Streams {
		s := maker(t)
		connect := s.Connect
		s.Opaque = true
		s.Connect = func(f weir.Factory, p weir.Protocol, opts ...weir.StreamOption) {
			connect(server(f), client(p), opts...)
		}
		return s
	}
}
