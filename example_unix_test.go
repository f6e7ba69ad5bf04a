//go:build unix

package weir_test

import (
	"fmt"
	"os"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

// Two protocols that talk to each other within one program.
func ExampleLoop_SocketPair() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	lines := frame.Lines(func(line []byte) error {
		fmt.Printf("%s\n", line)
		l.Stop()
		return nil
	})
	a, _, err := l.SocketPair(
		func(weir.Transport) weir.Protocol { return lines },
		func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) },
	)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(a, "hello")
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: hello
}

// A signal is a callback like any other.
func ExampleLoop_Signal() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	h, err := l.Signal(syscall.SIGUSR2, func(sig os.Signal) {
		fmt.Println(sig)
		l.Stop()
	})
	if err != nil {
		panic(err)
	}
	defer h.Remove()
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR2); err != nil {
		panic(err)
	}
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: user defined signal 2
}
