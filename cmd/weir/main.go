// Command weir connects any endpoint to any other: weir A B.
//
//	main ──▶ command: words, flags ──┬──▶ app: listens, connects, relays, drains
//	                                 ├──▶ explain, help, quote, completion, version
//	                                 └──▶ demo: an app between its own server and client
//
// It is built on weir's exported packages alone. Standard output carries data
// only; all messages go to standard error.
package main

import (
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/sink"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // something failed while running
	exitUsage   = 2 // the command line makes no sense
	exitPolicy  = 3 // refused by policy
)

func main() {
	// If a reader of our output goes away, a write fails; we are not killed.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(called().run())
}

// called is the call that this process is.
func called() *command {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // ~/ stays as it is
	}
	return &command{
		args:      os.Args[1:],
		stdin:     os.Stdin,
		stdout:    os.Stdout,
		stderr:    os.Stderr,
		lookupEnv: os.LookupEnv,
		lookupAll: os.Environ,
		home:      home,
		terminal:  isTerminal(os.Stderr),
		table:     endpoint.Default(),
	}
}

// command is one call of weir, with everything that it takes from its environment.
type command struct {
	args          []string // without the program's name
	stdin, stdout *os.File
	stderr        io.Writer
	lookupEnv     func(string) (string, bool)
	lookupAll     func() []string // the environment of programs; nil: it is empty
	raw           atomic.Bool     // standard input is a terminal, and raw
	plainErr      io.Writer       // stderr without anything before it
	home          string
	terminal      bool // stderr is one
	table         *endpoint.Table
	sink          *sink.Sink    // what run puts in front of stderr
	opened        []*sink.Sink  // of logs and recordings
	rep           *reporter     // of what opens endpoints; nil for other words
	layersEvery   time.Duration // for tests: see the constant; 0: that
	started       func()        // for tests: called once the loop turns with everything open
}

// isTerminal reports whether a person reads f. A character device that is not
// /dev/null is near enough, and asks for no system call of its own.
func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(st, null)
}
