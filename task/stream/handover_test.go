package stream_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

// heir takes a connection over from a coroutine.
type heir struct {
	t      weir.Transport
	use    func(b []byte) (int, error)
	onMade func(t weir.Transport)
	got    []byte
	unused int
	ended  bool
	lost   bool
	reason error
}

func (p *heir) ConnectionMade(t weir.Transport) {
	p.t = t
	if p.onMade != nil {
		p.onMade(t)
	}
}

func (p *heir) DataReceived(b []byte) (int, error) {
	if p.lost {
		p.got = append(p.got, "after the end"...)
	}
	n, err := len(b), error(nil)
	if p.use != nil {
		n, err = p.use(b)
	}
	if n > 0 && n <= len(b) {
		p.got = append(p.got, b[:n]...)
	}
	return n, err
}

func (p *heir) EOFReceived(unused int) (bool, error) {
	p.ended, p.unused = true, unused
	return false, nil
}

func (p *heir) ConnectionLost(err error) { p.lost, p.reason = true, err }

// Bytes that a coroutine had kept go to the next protocol as if from a transport:
// counts are checked, failures lose the connection with the reason, the rest is counted
// at the end, and a protocol that has closed gets none of them (R33, behaviours 25, 35
// and 36).
func TestHandover(t *testing.T) {
	errHeir := errors.New("heir failed")
	var used *weir.UsedError
	var tail *weir.TailError
	for _, c := range []struct {
		name  string
		heir  *heir
		more  string // comes after the handover
		check func(t *testing.T, p *heir)
	}{
		{"all used", &heir{}, "!", func(t *testing.T, p *heir) {
			if string(p.got) != "kept!" || !p.ended || p.unused != 0 || p.reason != nil {
				t.Errorf("%q, %d unused, %v", p.got, p.unused, p.reason)
			}
		}},
		{"some used", &heir{use: func(b []byte) (int, error) { return len(b) / 3 * 3, nil }}, "!", func(t *testing.T, p *heir) {
			if string(p.got) != "kep" || p.unused != 2 || !p.lost {
				t.Errorf("%q, %d unused, %v", p.got, p.unused, p.reason)
			}
		}},
		{"too much used", &heir{use: func(b []byte) (int, error) { return len(b) + 1, nil }}, "!", func(t *testing.T, p *heir) {
			if !p.lost || !errors.As(p.reason, &used) {
				t.Errorf("%v", p.reason)
			}
		}},
		{"fails", &heir{use: func(b []byte) (int, error) { return 0, errHeir }}, "", func(t *testing.T, p *heir) {
			if !p.lost || !errors.Is(p.reason, errHeir) {
				t.Errorf("%v", p.reason)
			}
		}},
		{"panics", &heir{use: func(b []byte) (int, error) { panic(errHeir) }}, "", func(t *testing.T, p *heir) {
			if !p.lost || p.reason == nil {
				t.Errorf("%v", p.reason)
			}
		}},
		{"closes", &heir{onMade: func(t weir.Transport) { _ = t.Close() }}, "!", func(t *testing.T, p *heir) {
			if len(p.got) != 0 || !p.lost {
				t.Errorf("%q, %v", p.got, p.reason)
			}
		}},
		{"keeps too much", &heir{use: func([]byte) (int, error) { return 0, nil }}, strings.Repeat("x", 100<<10), func(t *testing.T, p *heir) {
			if !p.lost || !errors.As(p.reason, &tail) {
				t.Errorf("%v", p.reason)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.serve(func(t *task.Task, s *stream.Stream) error {
				if _, err := s.ReadLine(t, 10); err != nil {
					return err
				}
				if err := t.Sleep(time.Second); err != nil { // meanwhile more is kept
					return err
				}
				s.Handover(c.heir)
				return t.Sleep(time.Minute)
			})
			if err := w.dial(func(t *task.Task, s *stream.Stream) error {
				if _, err := s.Write([]byte("a line\nkept")); err != nil {
					return err
				}
				if err := t.Sleep(5 * time.Second); err != nil {
					return err
				}
				_, _ = s.Write([]byte(c.more)) // may be lost by now
				_ = s.CloseWrite()
				return t.Sleep(time.Second)
			}); err != nil {
				t.Error(err)
			}
			c.check(t, c.heir)
		})
	}
}

// An upgrade that is cut short leaves no connection; one on a stream that is
// over fails.
func TestUpgradeCutShort(t *testing.T) {
	_, client := tlsPair(t)
	w := newWorld(t, 1)
	w.serve(func(t *task.Task, c *stream.Stream) error { // never speaks TLS
		return c.Closed(t)
	})
	err := w.dial(func(t *task.Task, c *stream.Stream) error {
		if f := c.Next(1); !f.Settled() {
			if _, err := upgrade(t, c, layer.TLS(client)); !errors.Is(err, stream.ErrBusy) {
				w.Error(err)
			}
			f.Cancel()
		}
		err := t.With(func(*task.Scope) error {
			_, err := upgrade(t, c, layer.TLS(client))
			return err
		}, task.Within(time.Second))
		if _, again := upgrade(t, c, layer.TLS(client)); !errors.Is(again, weir.ErrClosed) {
			w.Error(again)
		}
		return err
	})
	if !errors.Is(err, future.ErrTimeout) {
		t.Error(err)
	}
	if n := w.client.Connections() + w.server.Connections(); n != 0 {
		t.Errorf("%d connections left", n)
	}
}
