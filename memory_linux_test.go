package weir

import (
	"net"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir/internal/sys"
)

// TestIdleMemory measures the user memory of an idle TCP connection: at most 512 bytes
// (docs/promises.md, Targets). A stack that the runtime takes or returns meanwhile amounts
// to 20 bytes per connection, so the least of three measurements counts.
func TestIdleMemory(t *testing.T) {
	least := idleMemory(t)
	for range 2 {
		least = min(least, idleMemory(t))
	}
	if least > 512 {
		t.Errorf("an idle connection takes %.0f bytes, the limit is 512", least)
	}
}

func idleMemory(t *testing.T) float64 {
	t.Helper()
	const conns = 2000
	l, err := NewLoop(WithBackendName("epoll"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(t Transport) Protocol { return DataFunc(t.Write) })
	if err != nil {
		t.Fatal(err)
	}
	peers := make([]int, 0, conns)
	defer func() { sys.CloseAll(peers...) }()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	open := func(n int) {
		for range n {
			peers = append(peers, dialRaw(t, ln.Addr().(*net.TCPAddr).Port))
			for ln.Conns() < len(peers) {
				if err := l.Turn(-1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	open(100) // creates the tables and pools
	before := heap()
	open(conns - 100)
	each := (float64(heap()) - float64(before)) / (conns - 100)
	t.Logf("%.0f bytes for an idle connection", each)
	return each
}

// dialRaw connects a blocking socket that takes no memory of the Go heap.
func dialRaw(t *testing.T, port int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	return fd
}
