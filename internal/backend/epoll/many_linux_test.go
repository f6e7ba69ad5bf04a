package epoll

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestManyConnections: nine thousand connections, both ends in this process, exchange
// messages; none is forgotten and the cost per message stays the same as with one
// connection (R20).
func TestManyConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 18,000 descriptors")
	}
	const conns = 9000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < 2*conns+500 {
		t.Skipf("the limit of descriptors is %d", limit.Max)
	}
	if limit.Cur < 2*conns+500 {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Skipf("the limit of descriptors cannot be raised: %v", err)
		}
	}
	for _, style := range styles {
		t.Run(style.name, func(t *testing.T) {
			e := newEcho(t, style.edge, true, conns)
			defer e.b.Close()
			e.run(t, 1)
			before := e.b.Calls()
			const trips = 3
			e.run(t, trips)
			after := e.b.Calls()
			messages := float64(2 * trips * conns)
			calls := float64(after.Wait+after.Ctl+after.Read+after.Write-before.Wait-before.Ctl-before.Read-before.Write) / messages
			if calls > 2.05 {
				t.Errorf("%.3f system calls per message", calls)
			}
			t.Logf("%.3f system calls per message", calls)
		})
	}
}
