// Command weirload makes one load and prints what it counted. The benchmark
// starts it, one process for each measurement:
//
//	weirload SPEC    SPEC is a load.Spec in JSON
//
// A load through a relay first prints {"Backend": addr}, then reads a line with the relay's
// {"Addr": addr, "PIDs": [...]}. With Steps it prints {"Primed": true} when all connections are
// there and waits for a line, and with Memory also when a tenth of them is there. After the
// result the connections of an echo load and of many relays stay open, idle, until standard input ends or a line comes.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/weir-io/weir/bench/internal/load"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "weirload:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: weirload SPEC")
	}
	var s load.Spec
	if err := json.Unmarshal([]byte(os.Args[1]), &s); err != nil {
		return err
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	if s.CPU >= 0 {
		if err := load.Pin(s.CPU); err != nil {
			return err
		}
	}
	in := bufio.NewScanner(os.Stdin)
	var res load.Result
	var err error
	closing := func() {}
	switch s.Kind {
	case load.Echo:
		res, closing, err = load.RunEcho(&s, func() error { return primed(&s, in) })
	case load.Datagrams, load.DatagramRelay:
		res, err = datagrams(&s, in)
	case load.Churn:
		res, err = load.RunChurn(&s)
	case load.Relay, load.First, load.Sessions, load.Many:
		res, closing, err = relay(&s, in)
	default:
		err = fmt.Errorf("no load of kind %q", s.Kind)
	}
	if err != nil {
		return err
	}
	if err := say(res); err != nil {
		return err
	}
	if s.Kind == load.Echo || s.Kind == load.Many {
		in.Scan()
	}
	closing()
	return nil
}

// primed waits for the word to go, if it was asked to.
func primed(s *load.Spec, in *bufio.Scanner) error {
	if !s.Steps {
		return nil
	}
	return pause(in)
}

// pause waits for the word to go on.
func pause(in *bufio.Scanner) error {
	if err := say(map[string]bool{"Primed": true}); err != nil {
		return err
	}
	in.Scan()
	return nil
}

func datagrams(s *load.Spec, in *bufio.Scanner) (load.Result, error) {
	var b *load.PacketBackend
	if s.Kind == load.DatagramRelay {
		var err error
		if b, err = load.ListenPackets(s); err != nil {
			return load.Result{}, err
		}
		if err := meet(s, in, b.Addr); err != nil {
			return load.Result{}, err
		}
	}
	return load.RunPackets(s, b, func() error { return primed(s, in) })
}

// meet says where the backend is, and hears where the relay is.
func meet(s *load.Spec, in *bufio.Scanner, backend string) error {
	if err := say(map[string]string{"Backend": backend}); err != nil {
		return err
	}
	if !in.Scan() {
		return fmt.Errorf("no relay came")
	}
	return json.Unmarshal(in.Bytes(), s)
}

func relay(s *load.Spec, in *bufio.Scanner) (res load.Result, closing func(), err error) {
	closing = func() {}
	b, err := load.Listen()
	if err != nil {
		return res, closing, err
	}
	if err := meet(s, in, b.Addr); err != nil {
		return res, closing, err
	}
	switch s.Kind {
	case load.Relay:
		res, err = load.RunRelay(s, b)
	case load.Sessions:
		res, err = load.RunSessions(s, b, func() error { return primed(s, in) })
	case load.Many:
		return load.RunMany(s, b, func() error { return pause(in) }, func() error { return primed(s, in) })
	default:
		res, err = load.RunFirst(s, b)
	}
	return res, closing, err
}

func say(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(b))
	return err
}
