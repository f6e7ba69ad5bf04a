package stream_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

// handLoop is a loop that a test turns by hand.
type handLoop struct{ queue []func() }

type noTimer struct{}

func (noTimer) Set(time.Duration) {}
func (noTimer) Stop() bool        { return false }

func (l *handLoop) Soon(fn func()) struct{} {
	l.queue = append(l.queue, fn)
	return struct{}{}
}

func (l *handLoop) Post(fn func()) (struct{}, error) { return l.Soon(fn), nil }

func (l *handLoop) NewTimer(func()) noTimer { return noTimer{} }
func (l *handLoop) Now() time.Time          { return time.Time{} }

func (l *handLoop) run() {
	for len(l.queue) > 0 {
		fn := l.queue[0]
		l.queue = l.queue[1:]
		fn()
	}
}

// readScript makes reads of several kinds, as ops says, and records the result of each.
func readScript(ops []byte, feed func(c *stream.Stream)) (log []string, left int) {
	l := &handLoop{}
	root := task.New(future.On(l))
	c := stream.New(root.Scheduler())
	root.Go("reads", func(t *task.Task) error {
		var rest []byte
		for _, op := range ops {
			var got []byte
			var err error
			size := int(op>>3) + 1
			switch op & 7 {
			case 0, 1:
				got = make([]byte, size)
				var n int
				n, err = c.ReadFull(t, got)
				got = got[:n]
			case 2:
				got, err = c.ReadLine(t, size)
			case 3:
				got, err = c.ReadUntil(t, []byte("ab"), size)
			case 4:
				got, err = c.ReadUntil(t, []byte("aab"), size*4)
			case 5:
				got, err = task.Await(t, c.Next(size))
			case 6:
				got, err = task.Await(t, c.NextLine(size))
			case 7:
				if err := t.Yield(); err != nil { // bytes come while no one reads
					return err
				}
			}
			log = append(log, fmt.Sprintf("%d: %q %v", op, got, err))
		}
		for {
			b := make([]byte, 7)
			n, err := c.Read(t, b)
			rest = append(rest, b[:n]...)
			if err != nil {
				log = append(log, fmt.Sprintf("rest %q %v", rest, err))
				return nil
			}
		}
	})
	l.run()
	feed(c)
	l.run()
	if _, err := c.EOFReceived(0); err != nil {
		log = append(log, err.Error())
	}
	l.run()
	left = root.Tasks()
	if err := root.Close(); err != nil {
		log = append(log, err.Error())
	}
	return log, left
}

// However a stream is cut, and whether a reader waits for the bytes or they are kept,
// the reads give the same results.
func FuzzReads(f *testing.F) {
	f.Add([]byte("hello\nworld\r\naab aaab and the rest"), []byte{1, 3, 2}, []byte{42, 42, 27, 36, 24})
	f.Add([]byte("no end of the line"), []byte{5}, []byte{2, 50, 8})
	f.Add([]byte("aaaaab\n\n\nab"), []byte{0, 1, 0, 2}, []byte{100, 7, 6, 14, 46, 3, 5, 13})
	f.Fuzz(func(t *testing.T, data, cuts, ops []byte) {
		if len(data) > 2000 || len(ops) > 50 {
			t.Skip("long enough")
		}
		all := func(c *stream.Stream, p []byte) {
			if n, err := c.DataReceived(p); n != len(p) || err != nil {
				t.Errorf("used %d of %d: %v", n, len(p), err)
			}
		}
		whole, left := readScript(ops, func(c *stream.Stream) { all(c, data) })
		if left != 0 {
			t.Errorf("%d tasks left", left)
		}
		cut, _ := readScript(ops, func(c *stream.Stream) {
			rest := data
			for i := 0; len(rest) > 0; i++ {
				n := 1
				if len(cuts) > 0 {
					n = min(int(cuts[i%len(cuts)])+1, len(rest))
				}
				// The loan of the bytes ends with the call.
				p := append([]byte(nil), rest[:n]...)
				all(c, p)
				clear(p)
				rest = rest[n:]
			}
		})
		if fmt.Sprint(whole) != fmt.Sprint(cut) {
			t.Errorf("whole: %q\ncut:   %q", whole, cut)
		}
	})
}
