package portable

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

// fullDisk is a connection whose Write fails when it is allowed to return.
type fullDisk struct {
	io.Reader
	io.Closer
	may chan error
}

func (d fullDisk) Write([]byte) (int, error) { return 0, <-d.may }
func (fullDisk) CloseWrite() error           { return nil }

// TestLastWriteIsHeardOf: a Write finishes when its bytes have been copied; an empty
// one finishes when they have been written, or could not be, even after the end of
// writing.
func TestLastWriteIsHeardOf(t *testing.T) {
	full := errors.New("no space left")
	for _, ended := range []bool{false, true} {
		for _, fails := range []error{nil, full} {
			b, err := New()
			if err != nil {
				t.Fatal(err)
			}
			r, w := io.Pipe()
			d := fullDisk{Reader: r, Closer: w, may: make(chan error)}
			h, err := b.AdoptConn(d)
			if err != nil {
				t.Fatal(err)
			}
			op := backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{[]byte("last words")}}
			if c := result(t, b, &op); c.N != 10 || c.Err != nil {
				t.Fatalf("%+v", c)
			}
			if ended {
				if err := b.Shut(h, backend.ShutWrite); err != nil {
					t.Fatal(err)
				}
			}
			var c backend.Completion
			op.Vec = nil
			if b.Submit(&op, &c) {
				t.Fatalf("it is finished before the bytes are written: %+v", c)
			}
			quiet(t, b)
			select {
			case d.may <- fails:
			case <-time.After(30 * time.Second):
				t.Fatal("nothing is written")
			}
			if c := wait(t, b, &op); c.N != 0 || !errors.Is(c.Err, fails) {
				t.Errorf("ended %v: %+v, want %v", ended, c, fails)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestReaderLeftWithAll: if the reader of a pipe has read everything and left, that is
// not a failure of what was written.
func TestReaderLeftWithAll(t *testing.T) {
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h, err := b.AdoptConn(onlyWrites{w})
	if err != nil {
		t.Fatal(err)
	}
	op := backend.Op{Kind: backend.Write, Handle: h, Vec: [][]byte{[]byte("all")}}
	if c := result(t, b, &op); c.N != 3 || c.Err != nil {
		t.Fatalf("%+v", c)
	}
	if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	op.Vec = nil
	if c := result(t, b, &op); c.Err != nil {
		t.Fatalf("%+v", c)
	}
	gone := b.entry(h).port.(*blocking)
	gone.readerGone() // as the ward reports it
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if c := result(t, b, &op); c.N != 0 || c.Err != nil {
		t.Errorf("after the reader left: %+v", c)
	}
	op.Vec = [][]byte{[]byte("more")}
	if c := result(t, b, &op); c.Err == nil {
		t.Error("what the reader does not get is no error")
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// onlyWrites is one end of a pipe as a connection that no poller serves.
type onlyWrites struct{ w *os.File }

func (onlyWrites) Read([]byte) (int, error)      { return 0, io.EOF }
func (o onlyWrites) Write(p []byte) (int, error) { return o.w.Write(p) }
func (o onlyWrites) Close() error                { return o.w.Close() }
