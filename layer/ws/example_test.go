package ws_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
)

// echo sends every message back as the kind it was, text or binary.
type echo struct {
	weir.DataFunc // never called, because there is a MessageReceived
	m             ws.Messenger
}

func (e *echo) ConnectionMade(t weir.Transport)           { e.m, _ = weir.As[ws.Messenger](t) }
func (e *echo) MessageReceived(k ws.Kind, p []byte) error { return e.m.SendMessage(k, p) }

// speaker sends two messages, gets them back and closes.
type speaker struct {
	weir.DataFunc
	l     *weir.Loop
	m     ws.Messenger
	heard int
}

func (s *speaker) ConnectionMade(t weir.Transport) {
	s.m, _ = weir.As[ws.Messenger](t)
	_ = s.m.SendMessage(ws.Text, []byte("hello"))
	_ = s.m.SendMessage(ws.Binary, []byte{1, 2, 3})
}

func (s *speaker) MessageReceived(k ws.Kind, p []byte) error {
	fmt.Printf("%v %q\n", k, p)
	if s.heard++; s.heard == 2 {
		return s.m.CloseWith(ws.CodeNormal, "that was all")
	}
	return nil
}

func (s *speaker) ConnectionLost(err error) {
	fmt.Println("lost:", err)
	s.l.Stop()
}

// Messages: a protocol with the method MessageReceived gets whole messages, and
// sends through Messenger.
func ExampleMessenger() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	c := ws.Config{Path: "/echo"}
	ln, err := l.Listen("tcp", "127.0.0.1:0",
		layer.Server(func(weir.Transport) weir.Protocol { return new(echo) }, ws.Server(c)))
	if err != nil {
		panic(err)
	}
	l.Connect("tcp", ln.Addr().String(), layer.Client(&speaker{l: l}, ws.Client(c)))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// text "hello"
	// binary "\x01\x02\x03"
	// lost: <nil>
}
