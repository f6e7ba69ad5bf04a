package contract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// run turns l until done is called, at most for the time of a hung test.
func run(t *testing.T, l *weir.Loop) {
	t.Helper()
	late := l.After(20*time.Second, func() {
		t.Error("the loop did not come to an end")
		l.Stop()
	})
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	late.Stop()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func newLoop(t *testing.T, opts ...weir.LoopOption) *weir.Loop {
	t.Helper()
	l, err := weir.NewLoop(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// client collects what it receives and stops the loop at the end.
type client struct {
	send []byte
	eof  bool
	got  bytes.Buffer
	err  error
	t    weir.Transport
	fail *weir.ConnectError
	done func()
}

func (c *client) ConnectionMade(t weir.Transport) {
	c.t = t
	if _, err := t.Write(c.send); err != nil {
		panic(err)
	}
	if c.eof {
		if err := t.WriteEOF(); err != nil {
			panic(err)
		}
	}
}
func (c *client) DataReceived(p []byte) (int, error)   { return c.got.Write(p) }
func (c *client) ConnectionLost(err error)             { c.err = err; c.done() }
func (c *client) ConnectFailed(err *weir.ConnectError) { c.fail = err; c.done() }
func (c *client) EOFReceived(unused int) (bool, error) { return false, nil }

func TestEcho(t *testing.T) {
	for _, size := range []int{0, 1, 64, 100_000, 4 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			l := newLoop(t)
			ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
			if err != nil {
				t.Fatal(err)
			}
			c := &client{send: bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size], eof: true, done: l.Stop}
			l.Connect("tcp", ln.Addr().String(), c)
			run(t, l)
			if c.fail != nil {
				t.Fatal(c.fail)
			}
			if !bytes.Equal(c.got.Bytes(), c.send) || c.err != nil {
				t.Fatalf("got %d of %d bytes, %v", c.got.Len(), size, c.err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	l := newLoop(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	c := &client{done: l.Stop}
	l.Connect("tcp", addr, c)
	run(t, l)
	if c.fail == nil {
		t.Fatal("connected to nothing")
	}
	t.Log(c.fail)
}

func TestSplice(t *testing.T) {
	l := newLoop(t)
	data := bytes.Repeat([]byte("abcdefghijklmnop"), 1<<19)
	var total int64
	sink := &client{done: l.Stop}
	a, b, err := l.SocketPair(
		func(weir.Transport) weir.Protocol { return &client{send: data, eof: true, done: func() {}} },
		func(weir.Transport) weir.Protocol { return &client{done: func() {}} })
	if errors.Is(err, weir.ErrNotDescriptors) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = a
	x, y, err := l.SocketPair(
		func(weir.Transport) weir.Protocol { return &client{done: func() {}} },
		func(weir.Transport) weir.Protocol { return sink })
	if err != nil {
		t.Fatal(err)
	}
	_ = y
	s, ok := weir.As[weir.Splicer](b)
	if !ok {
		t.Fatal("no splicer")
	}
	if err := s.SpliceTo(x, func(n int64, err error) {
		total = n
		if err != nil {
			t.Error(err)
		}
		x.WriteEOF()
	}); err != nil {
		t.Skip(err)
	}
	run(t, l)
	if total != int64(len(data)) || !bytes.Equal(sink.got.Bytes(), data) {
		t.Fatalf("%d of %d spliced, %d arrived", total, len(data), sink.got.Len())
	}
}

var _ = io.EOF
