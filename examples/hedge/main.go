// Hedge asks several servers one question and prints the first answer: the
// next server is asked when the one before takes too long, or fails.
//
//	go run ./examples/redis &
//	go run ./examples/hedge -patience 50ms PING 127.0.0.1:6390 127.0.0.1:6380
//
// Its test shows what such a program needs most: in the simulator it forces the
// events into each of the orders that go wrong.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/weir-io/weir"
)

func main() {
	patience := flag.Duration("patience", 100*time.Millisecond, "how long to wait for one server before asking the next")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: hedge [-patience d] question host:port...")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Args()[1:], *patience); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(question string, servers []string, patience time.Duration) error {
	l, err := weir.NewLoop()
	if err != nil {
		return err
	}
	var failure error
	startAsk(l, servers, []byte(question), patience, func(answer []byte, err error) {
		failure = err
		if err == nil {
			fmt.Printf("%s\n", answer)
		}
		l.Stop()
	})
	if err := l.Run(); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	return failure
}
