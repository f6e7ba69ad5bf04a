package executor_test

import (
	"context"
	"fmt"
	"os"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
)

// Blocking work runs on a goroutine of the executor, and its result comes back to the
// loop as a future.
func Example() {
	loop, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	s := future.On(loop)
	disk := executor.New("disk", 2, 100)
	read := executor.Go(context.Background(), disk, s, func(context.Context) ([]byte, error) {
		return os.ReadFile("example_test.go")
	})
	read.OnDone(func(p []byte, err error) {
		fmt.Println("read:", len(p) > 0, err)
		loop.Stop()
	})
	if err := loop.Run(); err != nil {
		panic(err)
	}
	if err := loop.Close(); err != nil {
		panic(err)
	}
	// Output: read: true <nil>
}
