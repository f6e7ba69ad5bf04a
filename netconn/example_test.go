package netconn_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// net/http's server and client over a loop that runs on one goroutine.
func ExampleListen() {
	loop, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	ln, err := netconn.Listen(loop, "tcp", "127.0.0.1:0") // before Run: no Call is needed
	if err != nil {
		panic(err)
	}
	over := make(chan error, 1)
	go func() { over <- loop.Run() }()

	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "hello over weir")
	})}
	go func() { _ = server.Serve(ln) }()

	dialer := &netconn.Dialer{Loop: loop}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
	resp, err := client.Get("http://" + ln.Addr().String())
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.Status, string(body))

	_ = resp.Body.Close()
	_ = server.Close()
	loop.Stop()
	if err := <-over; err != nil {
		panic(err)
	}
	if err := loop.Close(); err != nil {
		panic(err)
	}
	// Output: 200 OK hello over weir
}

// A blocking connection, here a net.Pipe, as the transport of a callback protocol: an
// echo.
func ExampleAttach() {
	loop, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	over := make(chan error, 1)
	go func() { over <- loop.Run() }()

	here, there := net.Pipe()
	if _, err := netconn.Call(context.Background(), loop, func() (weir.Transport, error) {
		return netconn.Attach(loop, there, func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	}); err != nil {
		panic(err)
	}
	go func() { _, _ = fmt.Fprintln(here, "is anybody there?") }()
	line, _ := bufio.NewReader(here).ReadString('\n')
	fmt.Print(line)

	_ = here.Close()
	loop.Stop()
	if err := <-over; err != nil {
		panic(err)
	}
	if err := loop.Close(); err != nil {
		panic(err)
	}
	// Output: is anybody there?
}

// Code that blocks talks to a protocol of callbacks on the loop, as it would to
// any net.Conn.
func ExampleDial() {
	loop, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	ln, err := loop.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	if err != nil {
		panic(err)
	}
	over := make(chan error, 1)
	go func() { over <- loop.Run() }()

	conn, err := netconn.Dial(context.Background(), loop, "tcp", ln.Addr().String())
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(conn, "hello")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(line)

	_ = conn.Close()
	loop.Stop()
	if err := <-over; err != nil {
		panic(err)
	}
	if err := loop.Close(); err != nil {
		panic(err)
	}
	// Output: hello
}

// A datagram socket with a peer is a net.Conn, and tells when the peer's host refuses.
func ExampleConnectPacket() {
	loop, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	answer := weir.PacketFunc(func(e *weir.PacketEndpoint, p []byte, from weir.PacketAddr) {
		_ = e.SendTo(append([]byte("you said "), p...), from) // what is lost is asked for again
	})
	server, err := loop.ListenPacket("udp", "127.0.0.1:0", answer.Protocol())
	if err != nil {
		panic(err)
	}
	conn, err := netconn.ConnectPacket(loop, "udp", server.LocalAddr().String()) // before Run: no Call is needed
	if err != nil {
		panic(err)
	}
	over := make(chan error, 1)
	go func() { over <- loop.Run() }()

	fmt.Fprint(conn, "hello")
	p := make([]byte, 100)
	n, err := conn.Read(p)
	fmt.Printf("%s, %v\n", p[:n], err)

	if _, err := netconn.Call(context.Background(), loop, func() (any, error) { return nil, server.Close() }); err != nil {
		panic(err)
	}
	fmt.Fprint(conn, "are you there?")
	_, err = conn.Read(p)
	fmt.Println(errors.Is(err, syscall.ECONNREFUSED))

	_ = conn.Close()
	loop.Stop()
	if err := errors.Join(<-over, loop.Close()); err != nil {
		panic(err)
	}
	// Output:
	// you said hello, <nil>
	// true
}
