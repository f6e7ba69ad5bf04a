package sys

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/weir-io/weir/internal/backend"
	"golang.org/x/sys/unix"
)

// datagramPair returns a socket that sends and one that receives, with its
// address.
func datagramPair(t *testing.T, proto int, spec backend.Spec) (from, to int, at backend.Addr) {
	t.Helper()
	var fds [2]int
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
	}
	spec.Family = backend.Inet
	PrepareInfo(fds[1], &spec)
	at, err := Name(fds[1], false)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1], at
}

func packetsTo(to backend.Addr, sizes ...int) (all []backend.Packet) {
	for i, n := range sizes {
		all = append(all, backend.Packet{To: to, Data: bytes.Repeat([]byte{byte(i + 1)}, n)})
	}
	return all
}

// received takes what is there, message by message: its bytes and its segments.
func received(t *testing.T, fd int) (all []string) {
	t.Helper()
	var (
		in   Inbox
		done [8]backend.Completion
	)
	for {
		n, errno := in.Receive(fd, &backend.Op{Kind: backend.RecvFrom}, done[:])
		if errno == unix.EAGAIN {
			return all
		}
		if errno != 0 {
			t.Fatal(errno)
		}
		for _, c := range done[:n] {
			all = append(all, fmt.Sprintf("%d/%d", c.N, c.Segment))
		}
		if n < len(done) {
			return all
		}
	}
}

// joinedTo is datagrams of one size to one place, with a shorter one at the end.
func joinedTo(to backend.Addr, size, bytes int) backend.Packet {
	p := backend.Packet{To: to, Data: make([]byte, bytes), Segment: size}
	for i := range p.Data {
		p.Data[i] = byte(i)
	}
	return p
}

// TestJoined: the datagrams of a Packet with a Segment are one message, or as many as
// hold them; what follows is none of it (R51).
func TestJoined(t *testing.T) {
	for _, c := range []struct {
		name    string
		packets func(to backend.Addr) []backend.Packet
		n       int
		want    string
	}{
		{"a shorter one", func(to backend.Addr) []backend.Packet {
			return append([]backend.Packet{joinedTo(to, 100, 340)}, packetsTo(to, 100, 0)...)
		}, 6, "[340/100 100/0 0/0]"},
		{"the same place", func(to backend.Addr) []backend.Packet {
			return []backend.Packet{joinedTo(to, 100, 200), {Same: true, Data: make([]byte, 90), Segment: 30}, {Same: true, Data: []byte("x")}}
		}, 6, "[200/100 90/30 1/0]"},
		{"another source", func(to backend.Addr) []backend.Packet {
			all := []backend.Packet{joinedTo(to, 10, 20), joinedTo(to, 10, 20)}
			all[1].Info.Local = netip.MustParseAddr("127.0.0.1")
			return all
		}, 4, "[20/10 20/10]"},
		{"one", func(to backend.Addr) []backend.Packet { return []backend.Packet{joinedTo(to, 10, 10)} }, 1, "[10/0]"},
		{"more than a message takes", func(to backend.Addr) []backend.Packet {
			return []backend.Packet{joinedTo(to, 10, 645), joinedTo(to, 9000, 60000)}
		}, 65 + 7, "[640/10 5/0 60000/9000]"},
		{"more bytes", func(to backend.Addr) []backend.Packet { return []backend.Packet{joinedTo(to, 30000, 70000)} }, 3, "[60000/30000 10000/0]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from, to, at := datagramPair(t, 0, backend.Spec{Coalesce: true})
			var o Outbox
			all := c.packets(at)
			n, err := o.Send(from, false, all)
			if err != nil || n != c.n {
				t.Fatalf("sent %d of %d, %v", n, c.n, err)
			}
			if !o.Joins() {
				t.Skip("no UDP GSO")
			}
			if got := fmt.Sprint(received(t, to)); got != c.want {
				t.Errorf("messages %s, want %s", got, c.want)
			}
		})
	}
}

// TestOutboxFull: what one call cannot hold is left, in order.
func TestOutboxFull(t *testing.T) {
	from, to, at := datagramPair(t, 0, backend.Spec{})
	o := Outbox{probed: true} // that joins nothing
	var all []backend.Packet
	for range OutboxBatch/3 + 1 {
		all = append(all, joinedTo(at, 4, 12))
	}
	const want = OutboxBatch // of three more
	if n, err := o.Send(from, false, all); n != want || err != nil {
		t.Fatalf("sent %d, %v, want %d", n, err, want)
	}
	if got := received(t, to); len(got) != want || got[want-1] != "4/0" {
		t.Errorf("%d messages, want %d: %v", len(got), want, got)
	}
}

// TestJoinedRefused: where the kernel cannot take datagrams as one message, they
// leave one by one, and EIO ends the joining for good (R51).
func TestJoinedRefused(t *testing.T) {
	t.Run("without checksums", func(t *testing.T) {
		from, to, at := datagramPair(t, 0, backend.Spec{})
		if err := unix.SetsockoptInt(from, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Fatal(err)
		}
		var o Outbox
		for range 2 {
			if n, err := o.Send(from, false, []backend.Packet{joinedTo(at, 9, 27)}); n != 3 || err != nil {
				t.Fatalf("sent %d, %v", n, err)
			}
			if got, want := fmt.Sprint(received(t, to)), "[9/0 9/0 9/0]"; got != want {
				t.Errorf("messages %s, want %s", got, want)
			}
		}
		if o.Joins() && o.most != 9 {
			t.Errorf("datagrams up to %d bytes are still joined", o.most)
		}
	})
	t.Run("EIO", func(t *testing.T) {
		from, to, at := datagramPair(t, unix.IPPROTO_UDPLITE, backend.Spec{})
		var o Outbox
		n, err := o.Send(from, false, []backend.Packet{joinedTo(at, 9, 27)})
		if n != 3 || err != nil || o.Joins() {
			t.Fatalf("sent %d, %v; joins: %t", n, err, o.Joins())
		}
		if got, want := fmt.Sprint(received(t, to)), "[9/0 9/0 9/0]"; got != want {
			t.Errorf("messages %s, want %s", got, want)
		}
	})
}

// TestJoinedAgain: what one endpoint, or a path for a time, cannot take as one message is joined
// for others later (R51).
func TestJoinedAgain(t *testing.T) {
	from, to, at := datagramPair(t, 0, backend.Spec{Coalesce: true})
	var o Outbox
	send := func() {
		t.Helper()
		if n, err := o.Send(from, false, []backend.Packet{joinedTo(at, 9, 27)}); n != 3 || err != nil {
			t.Fatalf("sent %d, %v", n, err)
		}
	}
	noSums := func(v int) {
		t.Helper()
		if err := unix.SetsockoptInt(from, unix.SOL_SOCKET, unix.SO_NO_CHECK, v); err != nil {
			t.Fatal(err)
		}
	}
	noSums(1)
	send()
	if !o.Joins() {
		t.Skip("no UDP GSO")
	}
	received(t, to)
	noSums(0)
	for range joinAgain {
		send()
		if got, want := fmt.Sprint(received(t, to)), "[9/0 9/0 9/0]"; got != want {
			t.Fatalf("messages %s, want %s", got, want)
		}
	}
	send()
	if got, want := fmt.Sprint(received(t, to)), "[27/9]"; got != want {
		t.Errorf("%d calls later: messages %s, want %s", joinAgain, got, want)
	}
}

// TestJoinedAfterBad: what a datagram asks for in vain, such as a source that is not this
// machine's, ends no joining of others.
func TestJoinedAfterBad(t *testing.T) {
	from, to, at := datagramPair(t, 0, backend.Spec{Coalesce: true})
	var o Outbox
	bad := joinedTo(at, 9, 27)
	bad.Info.Local = netip.MustParseAddr("255.255.255.255")
	if n, err := o.Send(from, false, []backend.Packet{bad}); n != 0 || !errors.Is(err, unix.EINVAL) {
		t.Fatalf("sent %d, %v", n, err)
	}
	if !o.Joins() {
		t.Skip("no UDP GSO")
	}
	if n, err := o.Send(from, false, []backend.Packet{joinedTo(at, 9, 27)}); n != 3 || err != nil {
		t.Fatalf("sent %d, %v", n, err)
	}
	if got, want := fmt.Sprint(received(t, to)), "[27/9]"; got != want {
		t.Errorf("messages %s, want %s", got, want)
	}
}

// TestUnixUnprobed: sending over UNIX sockets does not ask the kernel for UDP GSO each time.
func TestUnixUnprobed(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		t.Cleanup(func() { unix.Close(fd) })
	}
	var o Outbox
	p := backend.Packet{To: backend.Addr{Family: backend.Unix, Path: "@peer"}, ToPeer: true, Data: []byte("x")}
	if n, err := o.Send(fds[0], false, []backend.Packet{p}); n != 1 || err != nil {
		t.Fatalf("sent %d, %v", n, err)
	}
	if o.most != 0 { // what the answer would set
		t.Error("UDP_SEGMENT was asked for on a UNIX socket")
	}
}

// TestInboxMemory: what is lent is used again after Reset, and is bounded.
func TestInboxMemory(t *testing.T) {
	from, to, at := datagramPair(t, 0, backend.Spec{})
	var (
		o    Outbox
		in   Inbox
		done [InboxBatch]backend.Completion
	)
	op := &backend.Op{Kind: backend.RecvFrom}
	all := packetsTo(at, 10, 20, 30, 40)
	round := func() {
		if n, err := o.Send(from, false, all); n != len(all) || err != nil {
			t.Fatalf("sent %d, %v", n, err)
		}
		if n, errno := in.Receive(to, op, done[:]); n != len(all) || errno != 0 {
			t.Fatalf("received %d, %v", n, errno)
		}
	}
	round()
	if n := testing.AllocsPerRun(100, func() { in.Reset(); round() }); n != 0 {
		t.Errorf("4 datagrams cost %v allocations", n)
	}
	for range 1000 { // without Reset
		round()
		if len(in.slots) > inboxMost || in.Lent() > inboxMost {
			t.Fatalf("memory of %d, %d lent", len(in.slots), in.Lent())
		}
	}
}
