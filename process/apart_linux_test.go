package process

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// lateReply is a protocol that is told that its program reads no more.
type lateReply struct {
	sink
	backlog int
	failed  error
}

func (l *lateReply) ConnectionMade(t weir.Transport) {
	l.sink.ConnectionMade(t)
	_, _ = t.Write(make([]byte, l.backlog)) // the failure comes later
}

func (l *lateReply) WriteFailed(err error) { l.failed = err }

// TestInputClosed: a program that closes its input goes on with its output: a reply that
// comes much later is delivered, with bytes waiting for the program or none, and through a
// layer.
func TestInputClosed(t *testing.T) {
	const script = "exec <&-; echo early; read x <&3; echo late"
	onBackends(t, func(r *rig) {
		for _, backlog := range []int{0, 1 << 20} {
			for _, layered := range []bool{false, true} {
				out, ctl := &lateReply{sink: sink{keep: true}, backlog: backlog}, &sink{}
				f := func(weir.Transport) weir.Protocol { return out }
				if layered {
					f = func(weir.Transport) weir.Protocol {
						return layer.Client(out, func(a layer.Above) layer.Above {
							return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
								b := &through{}
								return b.Init(b, "through", a)
							}}
						})
					}
				}
				so, sc := Pipes(f), Pipes(ctl.factory())
				p := r.start(sh(script, map[int]File{0: so.In(), 1: so.Out(), 3: sc.In()}))
				r.until("the end of writing", func() bool { return out.failed != nil || out.lost })
				if !errors.Is(out.failed, weir.ErrReaderGone) || !errors.Is(out.failed, syscall.EPIPE) || errors.Is(out.failed, weir.ErrClosed) {
					r.t.Errorf("WriteFailed(%v)", out.failed)
				}
				if _, err := out.t.Write([]byte("x")); !errors.Is(err, weir.ErrReaderGone) {
					r.t.Errorf("Write: %v", err)
				}
				waited := false
				r.l.After(3*time.Second/10, func() { waited = true })
				r.until("time", func() bool { return waited })
				if _, err := ctl.t.Write([]byte("\n")); err != nil {
					r.t.Fatal(err)
				}
				if e := r.exit(p); !e.Success() {
					r.t.Error(e)
				}
				r.until("the end of the output", func() bool { return out.lost })
				if string(out.got) != "early\nlate\n" || !out.eof {
					r.t.Errorf("backlog %d, layer %v: got %q, end of stream %v", backlog, layered, out.got, out.eof)
				}
				if backlog > 0 != errors.Is(out.err, syscall.EPIPE) || backlog == 0 && out.err != nil {
					r.t.Errorf("backlog %d, layer %v: lost with %v", backlog, layered, out.err)
				}
				r.until("the other pipe's end", func() bool { return ctl.lost })
			}
		}
	})
}

// through is a layer that does nothing.
type through struct{ layer.Base }

// waiter writes until it is paused, and then for as long as it is resumed.
type waiter struct {
	sink
	full bool
	err  error
}

func (w *waiter) ConnectionMade(t weir.Transport) { w.t = t; w.write() }

func (w *waiter) write() {
	for !w.full && w.err == nil {
		_, w.err = w.t.Write(make([]byte, 32<<10))
	}
}

func (w *waiter) PauseWriting()  { w.full = true }
func (w *waiter) ResumeWriting() { w.full = false; w.write() }

// TestInputClosedWaiting: a writer that waits, and is no WriteFailer, finds out that no
// one reads.
func TestInputClosedWaiting(t *testing.T) {
	onBackends(t, func(r *rig) {
		w, ctl := &waiter{sink: sink{keep: true}}, &sink{}
		s, sc := Pipes(func(weir.Transport) weir.Protocol { return w }), Pipes(ctl.factory())
		p := r.start(sh("head -c 100000 >/dev/null; exec <&-; read x <&3; echo done", map[int]File{0: s.In(), 1: s.Out(), 3: sc.In()}))
		r.until("a failed write", func() bool { return w.err != nil || w.lost })
		if err := ctl.t.Close(); err != nil {
			r.t.Fatal(err)
		}
		r.until("the end", func() bool { return w.lost })
		if !errors.Is(w.err, weir.ErrReaderGone) || string(w.got) != "done\n" {
			r.t.Errorf("the writer got %v, the output is %q", w.err, w.got)
		}
		if !errors.Is(w.sink.err, syscall.EPIPE) {
			r.t.Errorf("lost with %v", w.sink.err)
		}
		r.exit(p)
	})
}
