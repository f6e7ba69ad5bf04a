package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
	"github.com/weir-io/weir/weirtest"
)

// world has a server and a client on simulated hosts, both with a root scope.
type world struct {
	*testing.T
	sim            *weirtest.Sim
	server, client *weir.Loop
	ss, cs         *task.Scope
	errs           []error // failures of connections
}

func newWorld(t *testing.T, seed uint64, opts ...weirtest.SimOption) *world {
	weirtest.CheckLeaks(t)
	w := &world{T: t, sim: weirtest.NewSim(t, seed, opts...)}
	w.server, w.client = w.sim.Host("server").Loop(), w.sim.Host("client").Loop()
	unseen := future.WithUnseen(func(err error) { t.Error(err) })
	failed := task.Independent(func(_ *task.Task, err error) { w.errs = append(w.errs, err) })
	w.ss = task.New(future.On(w.server, future.AtCloseOnly(), unseen), failed)
	w.cs = task.New(future.On(w.client, future.AtCloseOnly(), unseen), failed)
	t.Cleanup(func() {
		for _, sc := range []*task.Scope{w.cs, w.ss} {
			if err := errors.Join(sc.Close(), sc.Scheduler().Close()); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

func (w *world) rest() {
	w.Helper()
	if err := w.sim.Run(nil); err != nil {
		w.Fatal(err)
	}
}

// serve listens; the factory's connections are tasks of the server's scope.
func (w *world) serve(h func(t *task.Task, c *stream.Stream) error) {
	w.Helper()
	if _, err := w.server.Listen("tcp", ":7000", stream.Factory(w.ss, h)); err != nil {
		w.Fatal(err)
	}
}

// dial runs a client as a task and lets everything run.
func (w *world) dial(h func(t *task.Task, c *stream.Stream) error) error {
	w.Helper()
	err := errors.New("the client did not end")
	w.cs.Go("client", func(t *task.Task) error {
		c, e := stream.Dial(t, w.client, "tcp", "server:7000")
		if e == nil {
			e = h(t, c)
			_ = c.Close()
		}
		err = e
		return nil
	})
	w.rest()
	return err
}

func echo(t *task.Task, c *stream.Stream) error {
	buf := make([]byte, 1000)
	for {
		n, err := c.Read(t, buf)
		if err != nil {
			return stream.End(err)
		}
		if err := c.Send(t, buf[:n]); err != nil {
			return err
		}
	}
}

// Every kind of read, however the stream is cut (R55).
func TestReads(t *testing.T) {
	for seed := range uint64(20) {
		f := weirtest.Faults{}
		if seed > 0 {
			f.CutRead, f.CutWrite, f.CutWire = 0.5, 0.3, 0.5
		}
		w := newWorld(t, seed+1, weirtest.WithFaults(f))
		w.serve(func(t *task.Task, c *stream.Stream) error {
			_, err := c.Write([]byte("first\nsecond\r\n\n12345678--end--tail"))
			return err
		})
		err := w.dial(func(t *task.Task, c *stream.Stream) error {
			for _, want := range []string{"first", "second", ""} {
				line, err := c.ReadLine(t, 100)
				if err != nil || string(line) != want {
					w.Errorf("line %q %v, want %q", line, err, want)
				}
			}
			b := make([]byte, 8)
			if n, err := c.ReadFull(t, b); n != 8 || err != nil || string(b) != "12345678" {
				w.Errorf("full %d %v %q", n, err, b)
			}
			part, err := c.ReadUntil(t, []byte("--end--"), 7)
			if err != nil || string(part) != "--end--" {
				w.Errorf("until %q %v", part, err)
			}
			if n, err := c.Read(t, b[:1]); n != 1 || err != nil || b[0] != 't' {
				w.Errorf("some %d %v %q", n, err, b[:1])
			}
			if line, err := c.ReadLine(t, 100); !errors.Is(err, io.ErrUnexpectedEOF) {
				w.Errorf("half a line %q %v", line, err)
			}
			if n, err := c.ReadFull(t, b); n != 3 || !errors.Is(err, io.ErrUnexpectedEOF) || string(b[:n]) != "ail" {
				w.Errorf("the rest %d %v %q", n, err, b[:n])
			}
			if n, err := c.Read(t, b); n != 0 || !errors.Is(err, io.EOF) {
				w.Errorf("the end %d %v", n, err)
			}
			if n, err := c.ReadFull(t, b); n != 0 || !errors.Is(err, io.EOF) {
				w.Errorf("the end %d %v", n, err)
			}
			_, err = c.ReadLine(t, 10)
			return err
		})
		if !errors.Is(err, io.EOF) || len(w.errs) > 0 {
			t.Error(err, w.errs)
		}
	}
}

// The maximum of a line counts neither its end nor what comes after it.
func TestTooLong(t *testing.T) {
	w := newWorld(t, 1)
	w.serve(func(t *task.Task, c *stream.Stream) error {
		_, err := c.Write([]byte("12345\r\n12345\n123456\n"))
		return err
	})
	err := w.dial(func(t *task.Task, c *stream.Stream) error {
		for range 2 {
			if line, err := c.ReadLine(t, 5); string(line) != "12345" || err != nil {
				w.Errorf("%q %v", line, err)
			}
		}
		_, err := c.ReadLine(t, 5)
		return err
	})
	if !errors.Is(err, stream.ErrTooLong) {
		t.Error(err)
	}
}

// Megabytes both ways, and the half-close (R32).
func TestEcho(t *testing.T) {
	for _, swarm := range []bool{false, true} {
		opts := []weirtest.SimOption{weirtest.WithFaults(weirtest.Faults{})}
		if swarm {
			opts = []weirtest.SimOption{weirtest.WithFaults(weirtest.Faults{CutRead: 0.3, CutWrite: 0.3, Slow: 0.2})}
		}
		w := newWorld(t, 3, opts...)
		w.serve(echo)
		sent := make([]byte, 1<<20)
		for i := range sent {
			sent[i] = byte(i * 7 >> 3)
		}
		var got bytes.Buffer
		err := w.dial(func(t *task.Task, c *stream.Stream) error {
			t.Go("writer", func(t *task.Task) error {
				for i := 0; i < len(sent); i += 1 << 14 {
					if err := c.Send(t, sent[i:i+1<<14]); err != nil {
						return err
					}
				}
				return c.CloseWrite()
			})
			b := make([]byte, 5000)
			for {
				n, err := c.Read(t, b)
				got.Write(b[:n])
				if err != nil {
					return stream.End(err)
				}
			}
		})
		if err != nil || len(w.errs) > 0 || !bytes.Equal(got.Bytes(), sent) {
			t.Errorf("%v %v, %d bytes of %d", err, w.errs, got.Len(), len(sent))
		}
	}
}

// A reader that does not read holds the writer up, and little is kept (G3).
func TestBackpressure(t *testing.T) {
	w := newWorld(t, 1)
	done := false
	sent := 0
	w.serve(func(t *task.Task, c *stream.Stream) error {
		b := make([]byte, 10_000)
		for range 1000 {
			if err := c.Send(t, b); err != nil {
				return err
			}
			sent += len(b)
		}
		done = true
		return nil
	})
	err := w.dial(func(t *task.Task, c *stream.Stream) error {
		if err := t.Sleep(time.Minute); err != nil {
			return err
		}
		if done || sent > 2<<20 {
			w.Errorf("%d bytes went to a peer that does not read", sent)
		}
		got := 0
		b := make([]byte, 100_000)
		for {
			n, err := c.Read(t, b)
			got += n
			if err != nil {
				if got != 10_000_000 {
					w.Errorf("got %d", got)
				}
				return stream.End(err)
			}
		}
	})
	if err != nil || !done || len(w.errs) > 0 {
		t.Error(err, done, w.errs)
	}
}

// A read that is cut short loses no byte (behaviour 82).
func TestCanceledReads(t *testing.T) {
	w := newWorld(t, 1)
	w.serve(func(t *task.Task, c *stream.Stream) error {
		for i := range 10 {
			if _, err := fmt.Fprintf(c, "%d", i); err != nil {
				return err
			}
			if err := t.Sleep(time.Second); err != nil {
				return err
			}
		}
		_, err := c.Write([]byte("\n"))
		return err
	})
	err := w.dial(func(t *task.Task, c *stream.Stream) error {
		within := func(d time.Duration, f func() error) error {
			return t.With(func(*task.Scope) error { return f() }, task.Within(d))
		}
		b := make([]byte, 8)
		if err := within(2500*time.Millisecond, func() error { _, err := c.ReadFull(t, b); return err }); !errors.Is(err, future.ErrTimeout) {
			w.Error(err)
		}
		if err := within(2500*time.Millisecond, func() error { _, err := c.ReadLine(t, 100); return err }); !errors.Is(err, future.ErrTimeout) {
			w.Error(err)
		}
		f := c.NextLine(100)
		if err := within(1500*time.Millisecond, func() error { _, err := task.Await(t, f); return err }); !errors.Is(err, future.ErrTimeout) {
			w.Error(err)
		}
		line, err := c.ReadLine(t, 100)
		if string(line) != "0123456789" {
			w.Errorf("%q %v", line, err)
		}
		if err := within(time.Millisecond, func() error { _, err := c.Read(t, b); return err }); !errors.Is(err, io.EOF) && !errors.Is(err, future.ErrTimeout) {
			w.Error(err)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Gather over two reads of one connection's replies needs no extra task (R54).
func TestGatherReplies(t *testing.T) {
	w := newWorld(t, 1)
	w.serve(func(t *task.Task, c *stream.Stream) error {
		for {
			line, err := c.ReadLine(t, 100)
			if err != nil {
				return stream.End(err)
			}
			if err := t.Sleep(time.Second); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(c, "reply to %s\n", line); err != nil {
				return err
			}
		}
	})
	err := w.dial(func(t *task.Task, c *stream.Stream) error {
		if _, err := c.Write([]byte("one\ntwo\n")); err != nil {
			return err
		}
		replies, err := task.Await(t, future.Gather(t.Scheduler(), c.NextLine(100), c.NextLine(100)))
		if err != nil {
			return err
		}
		if got := fmt.Sprintf("%s", replies); got != "[reply to one reply to two]" {
			w.Errorf("got %s", got)
		}
		if n := w.cs.Tasks(); n != 1 {
			w.Errorf("%d tasks", n)
		}
		f := c.Next(4)
		if _, err := c.ReadLine(t, 10); !errors.Is(err, stream.ErrBusy) {
			w.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		_, err = task.Await(t, f)
		return err
	})
	if !errors.Is(err, io.EOF) || len(w.errs) > 0 {
		t.Error(err, w.errs)
	}
}

// The reasons for the end, on both sides.
func TestEnds(t *testing.T) {
	w := newWorld(t, 1)
	b := make([]byte, 10)
	w.serve(func(t *task.Task, c *stream.Stream) error {
		_, err := c.Read(t, b)
		return err
	})
	// The peer aborts: a reset.
	if err := w.dial(func(t *task.Task, c *stream.Stream) error { c.Abort(); return c.Closed(t) }); !errors.Is(err, weir.ErrAborted) {
		t.Error(err)
	}
	if len(w.errs) != 1 || !errors.Is(w.errs[0], syscall.ECONNRESET) {
		t.Errorf("server: %v", w.errs)
	}
	// The handler fails: the client is reset.
	w.errs = nil
	err := w.dial(func(t *task.Task, c *stream.Stream) error {
		if err := c.CloseWrite(); err != nil {
			return err
		}
		_, err := c.Read(t, b)
		return err
	})
	if !errors.Is(err, syscall.ECONNRESET) || len(w.errs) != 1 || !errors.Is(w.errs[0], io.EOF) {
		t.Error(err, w.errs)
	}
	// Closed here, while another task reads.
	w.errs = nil
	err = w.dial(func(t *task.Task, c *stream.Stream) error {
		t.Go("closes", func(t *task.Task) error {
			if err := t.Sleep(time.Second); err != nil {
				return err
			}
			return c.Close()
		})
		_, err := c.Read(t, b)
		if e := c.Closed(t); e != nil {
			w.Error(e)
		}
		if _, e := c.Write(b); !errors.Is(e, weir.ErrClosed) {
			w.Error(e)
		}
		return err
	})
	if !errors.Is(err, weir.ErrClosed) {
		t.Error(err)
	}
	// No one listens.
	err = w.run(func(t *task.Task) error {
		_, err := stream.Dial(t, w.client, "tcp", "server:7001")
		return err
	})
	var ce *weir.ConnectError
	if !errors.As(err, &ce) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
	// A connect that is cut short is stopped.
	err = w.run(func(t *task.Task) error {
		return t.With(func(*task.Scope) error {
			_, err := stream.Dial(t, w.client, "tcp", "server:7000")
			return err
		}, task.Within(time.Microsecond))
	})
	if !errors.Is(err, future.ErrTimeout) {
		t.Error(err)
	}
	w.rest()
	if n := w.client.Connections(); n != 0 {
		t.Errorf("%d connections left", n)
	}
}

// run runs fn as a task of the client.
func (w *world) run(fn func(t *task.Task) error) (err error) {
	w.Helper()
	w.cs.Go("run", func(t *task.Task) error {
		err = fn(t)
		return nil
	})
	w.rest()
	return err
}

// A callback protocol follows a coroutine, with the bytes that it had not read (R9,
// R55, behaviour 31), and the other way round.
func TestPieceByPiece(t *testing.T) {
	for seed := range uint64(10) {
		f := weirtest.Faults{}
		if seed > 0 {
			f.CutRead, f.CutWire = 0.5, 0.5
		}
		w := newWorld(t, seed+1, weirtest.WithFaults(f))
		var rest collector
		w.serve(func(t *task.Task, c *stream.Stream) error {
			line, err := c.ReadLine(t, 100)
			if err != nil || string(line) != "hello" {
				w.Errorf("%q %v", line, err)
			}
			rest.want = 3 // bytes at a time
			c.Handover(&rest)
			if _, err := c.Read(t, make([]byte, 1)); !errors.Is(err, weir.ErrClosed) {
				w.Error(err)
			}
			_ = t.Yield()
			return t.Sleep(time.Minute)
		})
		// The client begins with callbacks and goes on as a coroutine.
		w.client.Connect("tcp", "server:7000", &greeter{then: func(tr weir.Transport) {
			c := stream.Adopt(w.cs.Scheduler(), tr)
			w.cs.Go("goes on", func(t *task.Task) error {
				line, err := c.ReadLine(t, 100)
				if err != nil || string(line) != "third" {
					w.Errorf("%q %v", line, err)
				}
				return c.Close()
			})
		}})
		w.rest()
		if string(rest.got) != "abcdefghijklmn" || !rest.lost {
			t.Errorf("seed %d: the second protocol got %q, lost %v", seed+1, rest.got, rest.lost)
		}
	}
}

// collector takes bytes in pieces of want, and greets.
type collector struct {
	t    weir.Transport
	want int
	got  []byte
	lost bool
}

func (p *collector) ConnectionMade(t weir.Transport) {
	p.t = t
	_, _ = t.Write([]byte("first\nsecond\nthird\n"))
}

func (p *collector) DataReceived(b []byte) (int, error) {
	n := len(b) / p.want * p.want
	if n == 0 && len(p.got) >= 12 {
		n = len(b) // the last two
	}
	p.got = append(p.got, b[:n]...)
	return n, nil
}

func (p *collector) ConnectionLost(error) { p.lost = true }

// greeter says something and reads two lines.
type greeter struct {
	weir.NopProtocol
	t     weir.Transport
	then  func(weir.Transport)
	lines int
}

func (p *greeter) ConnectionMade(t weir.Transport) {
	p.t = t
	_, _ = t.Write([]byte("hello\nabcdefghijklmn"))
}

func (p *greeter) DataReceived(b []byte) (int, error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return 0, nil
	}
	if p.lines++; p.lines == 2 {
		p.then(p.t)
	}
	return i + 1, nil
}

// A coroutine as the parser inside a callback protocol, byte by byte.
func TestFedByHand(t *testing.T) {
	w := newWorld(t, 1)
	c := stream.New(w.cs.Scheduler())
	var words []string
	w.cs.Go("parser", func(t *task.Task) error {
		for {
			word, err := c.ReadUntil(t, []byte(" "), 100)
			if err != nil {
				return stream.End(err)
			}
			words = append(words, string(word[:len(word)-1]))
		}
	})
	w.rest()
	for _, b := range []byte("one two three ") {
		before := len(words)
		if n, err := c.DataReceived([]byte{b}); n != 1 || err != nil {
			t.Error(n, err)
		}
		if (b == ' ') != (len(words) > before) {
			t.Errorf("%q was not seen at once", b)
		}
	}
	if _, err := c.EOFReceived(0); err != nil {
		t.Error(err)
	}
	w.rest()
	if got := strings.Join(words, ","); got != "one,two,three" || w.cs.Tasks() != 0 {
		t.Error(got, w.cs.Tasks())
	}
}
