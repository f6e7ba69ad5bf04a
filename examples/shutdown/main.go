// Shutdown is a server that shuts down gracefully. It answers each line in
// capitals; on SIGTERM or Ctrl-C it stops listening, says good-bye to everyone, and
// exits when everything it wrote has left.
//
//	go run ./examples/shutdown & nc 127.0.0.1 7003
package main

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

// patience is how long connections may take to end: less than the ten seconds after
// which containers are killed.
const patience = 8 * time.Second

func main() {
	if err := serve("127.0.0.1:7003"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(addr string) error {
	loop, err := weir.NewLoop()
	if err != nil {
		return err
	}
	ln, err := loop.Listen("tcp", addr, capitals)
	if err != nil {
		return err
	}
	end := func(os.Signal) {
		// Clients that wait in the system's queue are served first.
		ln.OnClosed(func() { ln.Each(goodBye) })
		loop.Shutdown(patience)
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		if _, err := loop.Signal(sig, end); err != nil {
			return err
		}
	}
	if err := loop.Run(); err != nil {
		return err
	}
	return loop.Close() // a *weir.CutError if some did not end in time
}

// goodBye closes a connection; what was written before still reaches the peer.
func goodBye(t weir.Transport) {
	_, _ = t.Write([]byte("good-bye\n"))
	_ = t.Close()
}

func capitals(t weir.Transport) weir.Protocol {
	return frame.Lines(func(line []byte) error {
		_, err := t.Write(append(bytes.ToUpper(line), '\n'))
		return err
	})
}
