// Workers is a web server in several processes. The first one accepts connections and
// passes each, before a byte of it is read, to the worker that was given fewest; the
// workers answer. A worker may crash without a loss to the others' clients, and may run
// with fewer rights than accepting takes.
//
//	clients ──▶ accepting process ──one byte and a descriptor──▶ worker 1
//	                              ◀──one byte for each that ended── worker 2 ...
//
//	go run ./examples/workers & curl http://127.0.0.1:7004/
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/process"
)

// patience is how long connections may take to end at SIGTERM.
const patience = 8 * time.Second

func main() {
	n := flag.Int("n", runtime.NumCPU(), "how many workers")
	worker := flag.Bool("worker", false, "be a worker, on descriptor 3")
	flag.Parse()
	run := func() error { return accept("127.0.0.1:7004", *n) }
	if *worker {
		run = work
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// accept runs the accepting process.
func accept(addr string, n int) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	loop, err := weir.NewLoop()
	if err != nil {
		return err
	}
	starter := executor.New("start", 1, n)
	a := &acceptor{loop: loop}
	started := 0
	for range n {
		w := &worker{a: a}
		s := process.Socket(func(weir.Transport) weir.Protocol { return w })
		process.Start(future.On(loop), starter, &process.Command{
			Path:  exe,
			Args:  []string{"worker", "-worker"},
			Files: map[int]process.File{2: process.Inherit(2), 3: s.In()},
			Group: true, // Ctrl-C is for us; a worker ends when its socket does
		}).OnDone(func(_ *process.Process, err error) {
			if started++; err == nil && started == n {
				// The factory's protocol only gives its connection away.
				a.ln, err = loop.Listen("tcp", addr, func(weir.Transport) weir.Protocol { return &guest{a: a} })
			}
			if err != nil {
				a.err = err
				loop.Stop()
			}
		})
	}
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		if _, err := loop.Signal(sig, func(os.Signal) { a.end() }); err != nil {
			return err
		}
	}
	if err := loop.Run(); err != nil {
		return err
	}
	_ = starter.Close() // always nil
	if err := loop.Close(); err != nil {
		return err
	}
	return a.err
}

// acceptor knows the workers.
type acceptor struct {
	loop    *weir.Loop
	ln      *weir.Listener
	workers []*worker
	err     error
}

// pass gives a connection to the worker that has fewest.
func (a *acceptor) pass(fd int) {
	var least *worker
	for _, w := range a.workers {
		if least == nil || w.open < least.open {
			least = w
		}
	}
	if least == nil {
		shut(fd) // there is no one to answer
		return
	}
	d, _ := weir.As[weir.DescriptorWriter](least.t) // every transport has it
	if _, err := d.WriteDescriptors([]byte{'c'}, fd); err != nil {
		shut(fd) // it is still ours: the worker has 1,024 to take already, or is going
		return
	}
	least.open++
}

// shut closes a descriptor.
func shut(fd int) { _ = os.NewFile(uintptr(fd), "client").Close() }

// end stops accepting; the workers end once their connections have, and we after them.
func (a *acceptor) end() {
	if a.ln != nil {
		_ = a.ln.Close() // always nil
	}
	for _, w := range a.workers {
		_ = w.t.WriteEOF() // one that fails has gone
	}
	a.loop.After(patience, a.loop.Stop)
}

// guest is the protocol of a connection that has just been accepted.
type guest struct{ a *acceptor }

func (g *guest) ConnectionMade(t weir.Transport) {
	d, _ := weir.As[weir.Detacher](t)
	fd, err := d.Detach()
	if err != nil {
		t.Abort()
		return
	}
	g.a.pass(fd)
}
func (g *guest) DataReceived(p []byte) (int, error) { return len(p), nil }
func (g *guest) ConnectionLost(error)               {}

// worker is the accepting process's end of the socket to a worker.
type worker struct {
	a    *acceptor
	t    weir.Transport
	open int // connections that it has
}

func (w *worker) ConnectionMade(t weir.Transport) {
	w.t = t
	w.a.workers = append(w.a.workers, w)
}

// DataReceived counts connections that have ended, a byte each.
func (w *worker) DataReceived(p []byte) (int, error) {
	w.open -= len(p)
	return len(p), nil
}

// ConnectionLost is called when the worker has ended. The others go on.
func (w *worker) ConnectionLost(error) {
	all := w.a.workers
	for i := range all {
		if all[i] == w {
			w.a.workers = append(all[:i], all[i+1:]...)
			break
		}
	}
	if len(w.a.workers) == 0 {
		w.a.loop.Stop()
	}
}

// work runs a worker.
func work() error {
	loop, err := weir.NewLoop()
	if err != nil {
		return err
	}
	if _, err := loop.Attach(3, "accepting process", func(weir.Transport) weir.Protocol { return &taker{} }); err != nil {
		return err
	}
	if err := loop.Run(); err != nil {
		return err
	}
	return loop.Close()
}

// taker is a worker's end of its socket.
type taker struct {
	t    weir.Transport
	open int
	end  bool
}

func (k *taker) ConnectionMade(t weir.Transport) { k.t = t }

// DescriptorsReceived implements weir.DescriptorReceiver.
func (k *taker) DescriptorsReceived(fds []int, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err) // those that did not come were closed
	}
	for _, fd := range fds {
		k.open++
		if _, err := k.t.Loop().Attach(fd, "client", func(t weir.Transport) weir.Protocol { return &client{k: k, t: t} }); err != nil {
			shut(fd)
			k.gone()
		}
	}
}

// DataReceived gets the byte that each descriptor came with.
func (k *taker) DataReceived(p []byte) (int, error) { return len(p), nil }

// EOFReceived comes when the accepting process ends, in whatever way.
func (k *taker) EOFReceived(int) (bool, error) {
	k.end = true
	k.over()
	return true, nil
}

func (k *taker) ConnectionLost(error) { k.t.Loop().Stop() }

// gone is called when a connection has ended.
func (k *taker) gone() {
	k.open--
	_, _ = k.t.Write([]byte{'.'}) // it fails once the accepting process has gone
	k.over()
}

func (k *taker) over() {
	if k.end && k.open == 0 {
		_ = k.t.Close() // always nil
	}
}

// client answers one request.
type client struct {
	k *taker
	t weir.Transport
}

func (c *client) ConnectionMade(weir.Transport) {}

func (c *client) DataReceived(p []byte) (int, error) {
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil // the rest of the head is to come
	}
	body := fmt.Sprintf("worker %d\n", os.Getpid())
	_, err := fmt.Fprintf(c.t, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	if err == nil {
		err = c.t.Close()
	}
	return len(p), err
}

func (c *client) ConnectionLost(error) { c.k.gone() }
