package netconn

import (
	"runtime/debug"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
)

// TestPacketQueueMemory: a queue that large bursts fill and empty again takes its memory from
// the one before, one that never empties moves a byte once at most, and neither grows.
func TestPacketQueueMemory(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector empties pools at random")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	p, from := make([]byte, 1200), weir.PacketAddr{}
	var q packets
	bursts := func() {
		for q.roomy() {
			q.put(p, from, nil)
		}
		for !q.empty() {
			q.drop()
		}
	}
	if n := testing.AllocsPerRun(100, bursts); n > 0 {
		t.Errorf("a burst allocates %v times", n)
	}
	if q.buf != nil || q.recs != nil {
		t.Error("an empty queue holds the memory of a large burst")
	}
	for q.roomy() {
		q.put(p, from, nil)
	}
	steady := func() {
		for range 1000 {
			q.drop()
			q.put(p, from, nil)
		}
	}
	if n := testing.AllocsPerRun(100, steady); n > 0 {
		t.Errorf("a full queue allocates %v times", n)
	}
	if n := cap(q.buf); n > 4*packetBytes {
		t.Errorf("a queue of %d bytes at most holds %d", packetBytes, n)
	}
	empty := func() {
		for range 1000 {
			q.put(nil, from, nil)
			q.drop()
		}
	}
	empty()
	if n := cap(q.recs); n > 4*packetCount {
		t.Errorf("a queue of %d datagrams at most holds %d", packetCount, n)
	}
}
