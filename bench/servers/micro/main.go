// Command micro measures what needs no socket: posts between goroutines, and
// timers. It prints one line of JSON with ns for each operation, by name.
//
//	micro posts|timers
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"

	"github.com/weir-io/weir/bench/internal/side"
)

// figures are ns for each operation.
type figures map[string]float64

// per notes how long n operations took since began.
func (f figures) per(name string, began time.Time, n int) {
	f[name] = float64(time.Since(began)) / float64(n)
}

// perCPU notes how long the thread has run for n operations since began: the
// cost of one goroutine's work, whatever else the machine does.
func (f figures) perCPU(name string, began time.Duration, n int) {
	f[name] = float64(threadTime()-began) / float64(n)
}

// threadTime is how long the calling thread has run.
func threadTime() time.Duration {
	var ts unix.Timespec
	side.Check(unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts))
	return time.Duration(ts.Nano())
}

func main() {
	kinds := map[string]func(figures){
		"posts":       posts,
		"posts-awake": func(figures) { postsAwake(awakePosts) },
		"posts-none":  func(figures) { postsAwake(0) },
		"timers":      timers,
	}
	if len(os.Args) != 2 || kinds[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: micro posts|posts-awake|posts-none|timers")
		os.Exit(2)
	}
	f := figures{}
	kinds[os.Args[1]](f)
	text, err := json.Marshal(f)
	side.Check(err)
	fmt.Println(string(text))
}

// newLoop makes a loop on the default backend.
func newLoop() *weir.Loop {
	l, err := weir.NewLoop()
	side.Check(err)
	return l
}
