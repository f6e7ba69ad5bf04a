package executor_test

import (
	"context"
	"fmt"
	"os"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
)

func Example() {
	loop, err := weir.New()
	if err != nil {
		panic(err)
	}
	s := future.On(loop)
	disk := executor.New("disk", 2, 100)
	read := executor.Go(context.Background(), disk, s, func(context.Context) ([]byte, error) {
		return os.ReadFile("/dev/null")
	})
	read.OnDone(func(p []byte, err error) {
		fmt.Println(len(p), "bytes,", err)
		loop.Stop()
	})
	if err := loop.Run(); err != nil {
		panic(err)
	}
	if err := loop.Close(); err != nil {
		panic(err)
	}
	// Output: 0 bytes, <nil>
}
