package zstd_test

import (
	"fmt"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/zstd"
)

// Both ends have the same layer. The layer nearest the wire comes first: here
// it counts the bytes that really pass.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	compressed, err := zstd.New(zstd.Config{Level: 3})
	if err != nil {
		panic(err)
	}
	onWire := 0
	count := layer.Observe(func(e layer.Traffic) {
		if e.What == layer.Received {
			onWire += len(e.Data)
		}
	})

	echo := func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }
	ln, err := l.Listen("tcp", "127.0.0.1:0", layer.Server(echo, compressed))
	if err != nil {
		panic(err)
	}
	text := strings.Repeat("all work and no play makes Jack a dull boy, ", 1000)
	client := frame.Lines(
		func(line []byte) error {
			fmt.Println("came back:", string(line) == text)
			fmt.Println("as a tenth at most:", onWire <= len(text)/10)
			l.Stop()
			return nil
		},
		frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, text) }),
	)
	l.Connect("tcp", ln.Addr().String(), layer.Client(client, count, compressed))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// came back: true
	// as a tenth at most: true
}
