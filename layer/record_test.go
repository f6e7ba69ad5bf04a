package layer_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
	"github.com/weir-io/weir/sink"
)

// disk is a writer with limited room.
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

// TestLossless: while a lossless recording has no room, its connections wait in
// both directions, and a new one waits before it begins. Once there is room
// again, everything passes and everything is recorded. If the recording cannot
// be written at all, the connections are lost with the reason.
func TestLossless(t *testing.T) {
	const much = 4 << 20
	d := &disk{room: 100, err: syscall.ENOSPC}
	s := sink.New(d, sink.Config{Lossless: true, Bytes: 256 << 10, Gap: layer.RecordingGap})
	record := layer.Record(s)
	request := bytes.Repeat([]byte("up"), much/2)
	m := meet(t, one(record), nil, request)
	step := func() {
		for s.Step() {
		}
	}
	sent := 0
	m.server.OnData = func(k *layertest.Keeper) {
		if sent == 0 {
			sent, _ = k.T.Write(bytes.Repeat([]byte("down"), much/4))
		}
	}
	for range 100 {
		m.pass(100 * time.Millisecond)
		step()
	}
	if n := s.Stats().Bytes; len(m.server.Got) == much || len(m.client.Got) == much || n > 1<<20 {
		t.Fatalf("up %d, down %d of %d bytes have passed with no room; %d wait", len(m.server.Got), len(m.client.Got), much, n)
	}
	d.room = 1 << 30
	m.Until("everything", func() bool {
		step()
		return len(m.server.Got) == much && len(m.client.Got) == much
	})
	_ = m.client.T.Close()
	m.Until("the end", func() bool { return m.server.Lost })
	step()
	events, err := layer.ReadRecording(bytes.NewReader(d.Bytes()), 1)
	if err != nil {
		t.Fatal(err)
	}
	var got [2]int
	for _, e := range events {
		switch e.What { //nolint:exhaustive // the bytes
		case layer.Received:
			got[0] += len(e.Data)
		case layer.Sent:
			got[1] += len(e.Data)
		}
	}
	if got != [2]int{much, much} || events[len(events)-1].What != layer.Lost {
		t.Errorf("%v bytes are recorded, the last event %q", got, events[len(events)-1].What)
	}
}

// TestLosslessNew: a connection made while there is no room begins once there
// is, and its recording includes its beginning.
func TestLosslessNew(t *testing.T) {
	d := &disk{err: syscall.ENOSPC}
	s := sink.New(d, sink.Config{Lossless: true, Bytes: 100})
	_ = s.Put(bytes.Repeat([]byte("x"), 100))
	m := meet(t, one(layer.Record(s)), nil, []byte("hello"))
	m.Until("the connect", func() bool { return m.client.T != nil })
	m.pass(time.Second)
	if m.server.T != nil {
		t.Fatal("a connection was made with no room to record it")
	}
	d.room = 1 << 20
	m.Until("the request", func() bool {
		for s.Step() {
		}
		return len(m.server.Got) == 5
	})
	_ = m.client.T.Close()
	m.Until("the end", func() bool { return m.server.Lost })
	for s.Step() {
	}
	if out := d.String()[100:]; strings.Count(out, "\n") != 4 || !strings.Contains(out, "1 +0.000000 + ") {
		t.Errorf("%q", out)
	}
}

// TestLosslessBroken: a recording that has failed for good ends its
// connections.
func TestLosslessBroken(t *testing.T) {
	d := &disk{err: syscall.EIO}
	s := sink.New(d, sink.Config{Lossless: true})
	m := meet(t, one(layer.Record(s)), nil, []byte("x"))
	m.Until("the connection", func() bool { return m.server.T != nil && len(m.server.Got) == 1 })
	for s.Step() {
	}
	_, _ = m.client.T.Write([]byte("y"))
	m.Until("the end", func() bool { return m.server.Lost })
	if !errors.Is(m.server.Err, syscall.EIO) || !strings.Contains(m.server.Err.Error(), "cannot be recorded") {
		t.Errorf("lost with %v", m.server.Err)
	}
}

// TestReplayPieces: a recording is read as it is played, at most one piece
// ahead, and off the loop; its file is closed once nothing more is read.
func TestReplayPieces(t *testing.T) {
	for _, c := range []struct {
		name string
		tail string
		want error
	}{
		{"whole", "1 +0.000002 -\n", nil},
		{"lost", "1 +0.000002 - \"reset\"\n", layer.ErrReplayLost},
		{"cut", "", layer.ErrReplayCut},
		{"marker", "0 +0.000000 ! \"9 entries\"\n", layer.ErrReplayCut},
		{"nonsense", "what is this\n1 +0.000002 -\n", &layer.RecordingError{Line: 2002, Problem: "it does not begin with a connection's number"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const lines, line = 2000, 4 << 10
			rest := strings.NewReader("1 +0.000000 + here\n" + strings.Repeat(fmt.Sprintf("1 +0.000001 < %d %q\n", line, strings.Repeat("x", line)), lines) + c.tail)
			total := rest.Len()
			loop, err := weir.NewLoop()
			if err != nil {
				t.Fatal(err)
			}
			defer loop.Close()
			r := layer.NewRecording(io.NopCloser(rest), 0)
			first, err := r.Piece()
			if err != nil {
				t.Fatal(err)
			}
			k := &pieces{loop: loop}
			closed := make(chan struct{})
			ended := func() { close(closed) }
			most := 0
			k.onData = func() { most = max(most, total-rest.Len()-k.n) }
			if err := layer.ReplayRecording(loop, first, func(got func([]layer.Traffic, error)) { go func() { got(r.Piece()) }() }, layer.ReplayConfig{Fast: true}, ended, func(weir.Transport) weir.Protocol { return k }); err != nil {
				t.Fatal(err)
			}
			if err := loop.Run(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-closed:
			case <-time.After(30 * time.Second):
				t.Error("it is still read")
			}
			var want, got *layer.RecordingError
			if errors.As(c.want, &want) {
				if !errors.As(k.err, &got) || *got != *want {
					t.Errorf("lost with %v, want %v", k.err, c.want)
				}
			} else if !errors.Is(k.err, c.want) {
				t.Errorf("lost with %v, want %v", k.err, c.want)
			}
			if k.n != lines*line {
				t.Errorf("%d bytes of %d", k.n, lines*line)
			}
			if most > 2<<20 {
				t.Errorf("%d bytes were read ahead of what was played", most)
			}
		})
	}
}

// pieces counts what comes and stops the loop at the end.
type pieces struct {
	loop   *weir.Loop
	n      int
	err    error
	onData func()
}

func (k *pieces) ConnectionMade(weir.Transport) {}
func (k *pieces) DataReceived(p []byte) (int, error) {
	k.n += len(p)
	k.onData()
	return len(p), nil
}
func (k *pieces) ConnectionLost(err error) { k.err = err; k.loop.Stop() }
