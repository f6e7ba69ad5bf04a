package file_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/file"
	"github.com/weir-io/weir/future"
)

// lines writes to a file and stops the loop when all of it is there.
type lines struct{ loop *weir.Loop }

func (l lines) ConnectionMade(t weir.Transport) {
	_, _ = t.Write([]byte("hello\n")) // an error comes to ConnectionLost too
	_ = t.Close()                     // always nil
}

func (lines) DataReceived(p []byte) (int, error) { return len(p), nil }

func (l lines) ConnectionLost(err error) {
	fmt.Println("lost:", err)
	l.loop.Stop()
}

// A log that any number of programs append to.
func Example() {
	dir, err := os.MkdirTemp("", "weir")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is the system's
	path := filepath.Join(dir, "log")
	loop, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	disk := executor.New("disk", 2, 100)
	c := &file.Config{Path: path, Append: true, Create: true, Mode: 0o600}
	file.Open(future.On(loop), disk, c, func(weir.Transport) weir.Protocol { return lines{loop} })
	if err := loop.Run(); err != nil {
		panic(err)
	}
	if err := loop.Close(); err != nil {
		panic(err)
	}
	all, err := os.ReadFile(path)
	fmt.Printf("%q %v\n", all, err)
	// Output:
	// lost: <nil>
	// "hello\n" <nil>
}
