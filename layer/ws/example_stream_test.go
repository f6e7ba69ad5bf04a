package ws_test

import (
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
)

// A stream: a protocol that knows nothing of messages gets through where only
// WebSockets may pass.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	echo := func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(echo, ws.Server(ws.Config{Path: "/tunnel"})))
	if err != nil {
		panic(err)
	}
	client := frame.Lines(
		func(line []byte) error {
			fmt.Printf("%s\n", line)
			l.Stop()
			return nil
		},
		frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, "hello") }),
	)
	l.Connect("tcp", ln.Addr().String(), layer.Client(client, ws.Client(ws.Config{Path: "/tunnel"})))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: hello
}
