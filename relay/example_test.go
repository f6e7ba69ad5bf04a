package relay_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/relay"
)

// asker is a client that sends its whole request, ends its direction, and waits
// for the answer.
type asker struct{ over func() }

func (a asker) ConnectionMade(t weir.Transport) {
	fmt.Fprint(t, "hello")
	if err := t.WriteEOF(); err != nil {
		panic(err)
	}
}

func (a asker) DataReceived(p []byte) (int, error) {
	fmt.Printf("heard %q\n", p)
	return len(p), nil
}

func (a asker) ConnectionLost(error) { a.over() }

// A local port leads to a server elsewhere: each connection to the port is
// joined to a new connection to the server. The client's end of stream is
// passed on, and the answer to it comes back.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	server, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol {
		return weir.DataFunc(t.Write)
	})
	if err != nil {
		panic(err)
	}

	left := 2 // the client and the relay, which end in either order
	over := func() {
		if left--; left == 0 {
			l.Stop()
		}
	}
	var result relay.Result
	front, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
		var up *weir.Connector
		r := relay.New(relay.Config{
			Abandon: func(relay.Side) { up.Stop() }, // the client left before the server was connected
			Done: func(r relay.Result) {
				result = r
				over()
			},
		})
		// The client may be connected first: what it sends waits for the
		// server.
		up = l.Connect("tcp", server.Addr().String(), r.Protocol(relay.B))
		return r.Protocol(relay.A)
	})
	if err != nil {
		panic(err)
	}

	l.Connect("tcp", front.Addr().String(), asker{over})
	if err := l.Run(); err != nil {
		panic(err)
	}
	fmt.Printf("%d bytes there and %d back; %v ended first: %v\n",
		result.Bytes[relay.A], result.Bytes[relay.B], result.By, result.Why)
	// Output:
	// heard "hello"
	// 5 bytes there and 5 back; A ended first: <nil>
}

// Each datagram is relayed on its own; a peer is identified by its address and
// forgotten after it has been silent for a while.
func ExampleNewPackets() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	echo := weir.PacketFunc(func(e *weir.PacketEndpoint, p []byte, from weir.PacketAddr) { _ = e.SendTo(p, from) })
	server, err := l.ListenPacket("udp", "127.0.0.1:0", echo.Protocol())
	if err != nil {
		panic(err)
	}
	front, err := relay.NewPackets(l, "udp", "127.0.0.1:0", relay.PacketConfig{Target: server.Local()})
	if err != nil {
		panic(err)
	}
	hear := weir.PacketFunc(func(_ *weir.PacketEndpoint, p []byte, from weir.PacketAddr) {
		fmt.Printf("%q, from the front: %v, peers: %d\n", p, from == front.Local(), front.Peers())
		l.Stop()
	})
	client, err := l.ListenPacket("udp", "127.0.0.1:0", hear.Protocol())
	if err != nil {
		panic(err)
	}
	if err := client.SendTo([]byte("hello"), front.Local()); err != nil {
		panic(err)
	}
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: "hello", from the front: true, peers: 1
}
