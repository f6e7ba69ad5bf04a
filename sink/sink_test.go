package sink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir/sink"
)

const patience = 30 * time.Second

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// TestReaderStopped: while no one reads, Put takes what the bounds allow, drops the
// rest at once and counts it; the reader then finds every whole entry in order, and one
// line that says what is missing, in its place.
func TestReaderStopped(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := sink.New(w, sink.Config{Name: "test", Bytes: 64 << 10, Entries: 1000})
	s.Start()
	dropped := 0
	for i := range 50_000 {
		switch err := s.Put(fmt.Appendf(nil, "entry %d\n", i)); {
		case errors.Is(err, sink.ErrFull):
			dropped++
		case err != nil:
			t.Fatal(err)
		}
	}
	st := s.Stats()
	if dropped == 0 || st.DroppedEntries != int64(dropped) || st.Entries > 1001 || st.Bytes > 64<<10+100 {
		t.Fatalf("dropped %d, and %+v", dropped, st)
	}
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r)
		got <- b
	}()
	if err := s.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	next, missing := 0, 0
	for line := range strings.Lines(string(<-got)) {
		var n, size int
		if k, _ := fmt.Sscanf(line, "%d entries (%d bytes) were left out here: its reader did not keep up", &n, &size); k == 2 {
			next, missing = next+n, missing+n
		} else if line != fmt.Sprintf("entry %d\n", next) {
			t.Fatalf("%q, and entry %d is next", line, next)
		} else {
			next++
		}
	}
	if next != 50_000 || missing != dropped {
		t.Errorf("up to entry %d, %d missing of %d dropped", next, missing, dropped)
	}
}

// TestCloseBounded: a reader that never comes does not keep Close beyond its
// context.
func TestCloseBounded(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := sink.New(w, sink.Config{Name: "stuck"})
	s.Start()
	for range 1 << 10 {
		_ = s.Put(make([]byte, 1<<10))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "sink stuck") {
		t.Errorf("Close: %v", err)
	}
	if err := s.Put([]byte("x")); !errors.Is(err, sink.ErrClosed) {
		t.Errorf("Put after Close: %v", err)
	}
	_ = r.Close()
}

// disk is a writer with limited room, and an error beyond it.
type disk struct {
	bytes.Buffer
	room int
	err  error
}

func (d *disk) Write(p []byte) (int, error) {
	n := min(len(p), d.room)
	d.room -= n
	d.Buffer.Write(p[:n])
	if n < len(p) {
		return n, d.err
	}
	return n, nil
}

// TestFullDisk: what a full disk lost is reported on it once there is room, after a
// newline that ends a cut line, and Trouble is called once for the failure and once for
// its end.
func TestFullDisk(t *testing.T) {
	d := &disk{room: 9, err: syscall.ENOSPC}
	var heard []error
	s := sink.New(d, sink.Config{Trouble: func(err error) { heard = append(heard, err) }})
	for i := range 4 {
		_ = s.Put(fmt.Appendf(nil, "line %d\n", i))
		s.Step()
	}
	d.room = 1 << 20
	_ = s.Put([]byte("line 4\n"))
	for s.Step() {
	}
	const want = "line 0\nli\n3 entries (21 bytes) were left out here: no space left on device\nline 4\n"
	if d.String() != want {
		t.Errorf("%q\nwant\n%q", d.String(), want)
	}
	if len(heard) != 2 || !errors.Is(heard[0], syscall.ENOSPC) || heard[1] != nil {
		t.Errorf("heard %v", heard)
	}
	if st := s.Stats(); st.DroppedEntries != 3 || st.WrittenEntries != 2 || st.Entries != 0 {
		t.Errorf("%+v", st)
	}

	// The same at the end, with nothing else to write.
	d = &disk{err: syscall.EIO}
	s = sink.New(d, sink.Config{})
	_ = s.Put([]byte("lost\n"))
	s.Step()
	d.room = 1 << 20
	if err := s.Close(soon(t)); err != nil || d.String() != "1 entries (5 bytes) were left out here: input/output error\n" {
		t.Errorf("%v, %q", err, d.String())
	}
}

// TestLossless: if there is room for only a part, the rest waits, even from within an
// entry; the caller is told when there is room for more, and any other failure breaks
// the Sink.
func TestLossless(t *testing.T) {
	d := &disk{room: 10, err: syscall.ENOSPC}
	s := sink.New(d, sink.Config{Lossless: true, Bytes: 16, Entries: 100})
	room := 0
	for i := range 3 {
		if err := s.Put(fmt.Appendf(nil, "line %d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Full() {
		t.Error("21 bytes of 16, and it is not full")
	}
	s.WhenRoom(func() { room++ })
	for s.Step() { // as long as there is room
	}
	if room != 0 {
		t.Errorf("room %d", room)
	}
	if err := s.Flush(soon(t)); err == nil {
		t.Error("Flush on a full disk succeeds")
	}
	d.room = 1 << 20
	for s.Step() {
	}
	if d.String() != "line 0\nline 1\nline 2\n" || room != 1 || s.Full() {
		t.Errorf("%q, room %d", d.String(), room)
	}
	d.room, d.err = 0, syscall.EIO
	_ = s.Put([]byte("line 3\n"))
	for s.Step() {
	}
	if !errors.Is(s.Err(), syscall.EIO) || !errors.Is(s.Put([]byte("x")), syscall.EIO) {
		t.Errorf("broken: %v", s.Err())
	}
}

// TestBusy: a descriptor that another process made non-blocking is not a failure.
func TestBusy(t *testing.T) {
	d := &disk{room: 3, err: syscall.EAGAIN}
	s := sink.New(d, sink.Config{Trouble: func(err error) { t.Errorf("trouble: %v", err) }})
	_ = s.Put([]byte("a line\n"))
	for s.Step() {
	}
	d.room = 100
	for s.Step() {
	}
	if d.String() != "a line\n" {
		t.Errorf("%q", d.String())
	}
}

// TestManyWriters: entries of several goroutines stay whole and in each one's
// order.
func TestManyWriters(t *testing.T) {
	var out bytes.Buffer
	s := sink.New(&out, sink.Config{Bytes: 1 << 24, Entries: 1 << 20})
	s.Start()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				_, _ = fmt.Fprintf(s, "%d %d\n", g, i)
			}
		})
	}
	wg.Wait()
	if err := s.Close(soon(t)); err != nil {
		t.Fatal(err)
	}
	var next [4]int
	for line := range strings.Lines(out.String()) {
		var g, i int
		if _, err := fmt.Sscanf(line, "%d %d\n", &g, &i); err != nil || next[g] != i {
			t.Fatalf("%q, want %d of %d", line, next[g], g)
		}
		next[g]++
	}
	if next != [4]int{5000, 5000, 5000, 5000} {
		t.Errorf("%v", next)
	}
}

// TestSteady: an entry costs no allocation.
func TestSteady(t *testing.T) {
	s := sink.New(io.Discard, sink.Config{})
	line := []byte("a line\n")
	if n := testing.AllocsPerRun(1000, func() {
		_ = s.Put(line)
		s.Step()
	}); n > 0.1 {
		t.Errorf("%v allocations", n)
	}
}

// Example logs to standard output through a Sink.
func Example() {
	s := sink.New(os.Stdout, sink.Config{Name: "log"})
	s.Start()
	fmt.Fprintln(s, "it never makes a loop wait")
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output: it never makes a loop wait
}
