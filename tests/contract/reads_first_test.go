package contract

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/portable"
)

// readsFirst reports the reads of a Wait before its writes, as a backend may.
type readsFirst struct{ backend.Backend }

func (b readsFirst) Wait(timeout time.Duration, done []backend.Completion) (int, error) {
	n, err := b.Backend.Wait(timeout, done)
	slices.SortStableFunc(done[:n], func(x, y backend.Completion) int { return int(x.Op.Kind) - int(y.Op.Kind) })
	return n, err
}

// eager continues to read however much it has to write.
type eager struct{ *client }

func (eager) PauseWriting()  {}
func (eager) ResumeWriting() {}

// TestResultsOfOneBatch: between Wait and the OpDone of a write, a callback of
// the same batch writes more. The write Op is not free yet.
func TestResultsOfOneBatch(t *testing.T) {
	be, err := portable.New()
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(t, weir.WithBackend(readsFirst{be}))
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	if err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 16<<20)
	for i := range sent {
		sent[i] = byte(i >> 10)
	}
	c := &client{send: sent, eof: true, done: l.Stop}
	l.Connect("tcp", ln.Addr().String(), eager{c})
	run(t, l)
	if !bytes.Equal(c.got.Bytes(), sent) || c.err != nil {
		t.Fatalf("got %d of %d bytes, %v", c.got.Len(), len(sent), c.err)
	}
}
