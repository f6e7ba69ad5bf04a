package process

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/weir-io/weir"
)

var crowd = flag.Int("crowd", 1000, "how many children TestCrowd starts, a tenth of them at once, but at most 200")

// TestCrowd: a thousand children, a hundred at once, leave no descriptor, zombie or
// goroutine.
func TestCrowd(t *testing.T) {
	all, atOnce := *crowd, min(*crowd/10, 200)
	onBackends(t, func(r *rig) {
		started, ended, running, most, lost := 0, 0, 0, 0, 0
		var next func()
		next = func() {
			for started < all && running < atOnce {
				started++
				running++
				most = max(most, running)
				f := func(weir.Transport) weir.Protocol { return &counted{over: func() { lost++ }} }
				s := Pipes(f)
				if started%2 == 0 {
					s = Socket(f)
				}
				c := &Command{Path: "/bin/true", Files: map[int]File{0: s.In(), 1: s.Out()}}
				Start(r.s, r.e, c).OnDone(func(p *Process, err error) {
					if err != nil {
						r.t.Error(err)
						ended, running = ended+1, running-1
						return
					}
					p.OnExit(func(e Exit) {
						if !e.Success() {
							r.t.Error(e)
						}
						ended, running = ended+1, running-1
						next()
					})
				})
			}
		}
		next()
		for want := 0; want < all; { // a machine may be slow, but not stand still
			want = min(want+atOnce, all)
			r.until(fmt.Sprintf("%d children", want), func() bool { return ended >= want && lost >= want })
		}
		if most != atOnce {
			r.t.Errorf("at most %d ran at once", most)
		}
	})
}

// counted is a protocol that only tells of its end.
type counted struct {
	weir.NopProtocol
	over func()
}

func (c *counted) ConnectionLost(error)                 { c.over() }
func (c *counted) EOFReceived(int) (keep bool, e error) { return false, nil }

// pump writes so many bytes as fast as they are taken, then the end, and checks that
// they come back.
type pump struct {
	t          weir.Transport
	left, back int
	bad, lost  bool
	err        error
	full       bool
}

// pattern is bytes whose place in the stream shows; a piece is a prime number of them.
var pattern = bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog;"), 1490)[:65521]

func (p *pump) ConnectionMade(t weir.Transport) { p.t = t; p.write() }

func (p *pump) write() {
	for p.left > 0 && !p.full {
		n := min(p.left, len(pattern))
		if _, err := p.t.Write(pattern[:n]); err != nil {
			return
		}
		if p.left -= n; p.left == 0 {
			p.err = p.t.WriteEOF()
		}
	}
}

func (p *pump) PauseWriting()  { p.full = true }
func (p *pump) ResumeWriting() { p.full = false; p.write() }

func (p *pump) DataReceived(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		want := pattern[p.back%len(pattern):]
		n := min(len(want), len(rest))
		p.bad = p.bad || !bytes.Equal(want[:n], rest[:n])
		p.back += n
		rest = rest[n:]
	}
	return len(b), nil
}

func (p *pump) EOFReceived(int) (bool, error) { return false, nil }

func (p *pump) ConnectionLost(err error) { p.lost = true; p.err = err }

// TestBulk: 100 MiB go through a child, both ways at once, and the end of one direction
// leaves the other.
func TestBulk(t *testing.T) {
	size := 100 << 20
	if testing.Short() {
		size = 4 << 20
	}
	onBackends(t, func(r *rig) {
		p := &pump{left: size}
		s := Pipes(func(weir.Transport) weir.Protocol { return p })
		c := r.start(&Command{Path: "cat", Files: map[int]File{0: s.In(), 1: s.Out()}})
		r.until("the bytes", func() bool { return p.lost })
		if p.bad || p.back != size || p.err != nil {
			r.t.Errorf("%d of %d bytes came back, wrong %v, %v", p.back, size, p.bad, p.err)
		}
		if e := r.exit(c); !e.Success() {
			r.t.Error(e)
		}
	})
}

// BenchmarkStart is a start with two pipes to the exit, beside os/exec.
func BenchmarkStart(b *testing.B) {
	b.Run("weir", func(b *testing.B) {
		l, err := weir.NewLoop()
		if err != nil {
			b.Fatal(err)
		}
		r := newBench(l)
		b.ReportAllocs()
		for b.Loop() {
			left := 2 // the exit, and the end of the transport
			over := func() {
				if left--; left == 0 {
					l.Stop()
				}
			}
			l.Soon(func() {
				s := Pipes(func(weir.Transport) weir.Protocol { return &counted{over: over} })
				Start(r.s, r.e, &Command{Path: "/bin/true", Files: map[int]File{0: s.In(), 1: s.Out()}}).OnDone(func(p *Process, err error) {
					if err != nil {
						b.Error(err)
						l.Stop()
						return
					}
					p.OnExit(func(Exit) { over() })
				})
			})
			if err := l.Run(); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("os-exec", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c := exec.Command("/bin/true")
			in, err := c.StdinPipe()
			if err != nil {
				b.Fatal(err)
			}
			out, err := c.StdoutPipe()
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err == nil {
				b.Fatal("it wrote")
			}
			_ = in.Close() // it has gone
			if err := c.Wait(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkRunning is what a child costs while it runs and says nothing, beside os/exec with
// a goroutine that reads its output and one that waits for it: memory, goroutines and
// descriptors of ours.
func BenchmarkRunning(b *testing.B) {
	const children = 100
	usage := func() (memory uint64, goroutines, descriptors int) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			b.Fatal(err)
		}
		return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine(), len(open)
	}
	measure := func(b *testing.B, start func() (end func())) {
		for b.Loop() {
			memory, goroutines, descriptors := usage()
			end := start()
			m, g, d := usage()
			b.ReportMetric(float64(m-memory)/children, "B/child")
			b.ReportMetric(float64(g-goroutines)/children, "goroutines/child")
			b.ReportMetric(float64(d-descriptors)/children, "descriptors/child")
			end()
		}
	}
	b.Run("weir", func(b *testing.B) {
		l, err := weir.NewLoop()
		if err != nil {
			b.Fatal(err)
		}
		r := newBench(l)
		measure(b, func() func() {
			left := children
			done := func() {
				if left--; left == 0 {
					l.Stop()
				}
			}
			all := make([]*Process, 0, children)
			l.Soon(func() {
				for range children {
					s := Pipes(func(weir.Transport) weir.Protocol { return &counted{over: func() {}} })
					Start(r.s, r.e, &Command{Path: "/bin/cat", Files: map[int]File{0: s.In(), 1: s.Out()}}).OnDone(func(p *Process, err error) {
						if err != nil {
							b.Error(err)
						} else {
							all = append(all, p)
						}
						done()
					})
				}
			})
			if err := l.Run(); err != nil {
				b.Fatal(err)
			}
			r.e.Wait()
			return func() {
				left = len(all)
				for _, p := range all {
					p.OnExit(func(Exit) { done() })
					p.Stop(0)
				}
				if err := l.Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("os-exec", func(b *testing.B) {
		measure(b, func() func() {
			var over sync.WaitGroup
			all := make([]*exec.Cmd, 0, children)
			for range children {
				c := exec.Command("/bin/cat")
				if _, err := c.StdinPipe(); err != nil {
					b.Fatal(err)
				}
				out, err := c.StdoutPipe()
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Start(); err != nil {
					b.Fatal(err)
				}
				all = append(all, c)
				read := make(chan struct{})
				over.Go(func() {
					defer close(read)
					_, _ = io.Copy(io.Discard, out) // it is killed
				})
				over.Go(func() {
					<-read
					_ = c.Wait() // it is killed
				})
			}
			return func() {
				for _, c := range all {
					_ = c.Process.Kill() // it runs
				}
				over.Wait()
			}
		})
	})
}
