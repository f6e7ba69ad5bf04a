package netconn_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

func listenPacket(t testing.TB, l *weir.Loop, network, address string) *netconn.PacketConn {
	t.Helper()
	c := on(t, l, func() (*netconn.PacketConn, error) { return netconn.ListenPacket(l, network, address) })
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(soon())
	return c
}

// echoPackets returns what comes, until c is closed.
func echoPackets(c net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

// TestPacketConn: datagrams of every size there and back, on each backend
// (R50, R51), beside package net's own socket as a peer.
func TestPacketConn(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		for _, network := range []string{"udp4", "udp6", "unixgram"} {
			t.Run(network, func(t *testing.T) {
				l := newLoop(t)
				addresses := map[string][2]string{
					"udp4": {"127.0.0.1:0", "127.0.0.1:0"}, "udp6": {"[::1]:0", "[::1]:0"},
					"unixgram": {filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")},
				}[network]
				server := listenPacket(t, l, network, addresses[0])
				go echoPackets(server)
				peer, err := net.ListenPacket(network, addresses[1])
				if err != nil {
					t.Fatal(err)
				}
				defer peer.Close()
				_ = peer.SetDeadline(soon())
				for name, c := range map[string]net.PacketConn{
					"ours": listenPacket(t, l, network, map[bool]string{true: addresses[1] + "2", false: addresses[1]}[network == "unixgram"]),
					"net":  peer,
				} {
					buf := make([]byte, 64<<10)
					for _, size := range []int{0, 1, 1400, 9000, 60_000} {
						want := pattern(size)
						if n, err := c.WriteTo(want, server.LocalAddr()); n != size || err != nil {
							t.Fatalf("%s: sent %d of %d, %v", name, n, size, err)
						}
						n, from, err := c.ReadFrom(buf)
						if err != nil || !bytes.Equal(buf[:n], want) || from.String() != server.LocalAddr().String() {
							t.Fatalf("%s: %d bytes of %d from %v, %v", name, n, size, from, err)
						}
					}
					// What does not fit is lost, and the next is whole.
					for _, p := range []string{"too long", "ok"} {
						if _, err := c.WriteTo([]byte(p), server.LocalAddr()); err != nil {
							t.Fatal(err)
						}
					}
					for _, want := range []string{"too", "ok"} {
						if n, _, err := c.ReadFrom(buf[:3]); err != nil || string(buf[:n]) != want {
							t.Errorf("%s: got %q, %v, want %q", name, buf[:n], err, want)
						}
					}
				}
			})
		}
	})
}

// TestPacketConnWaits: deadlines, Close under a reader, and addresses that make
// no sense.
func TestPacketConnWaits(t *testing.T) {
	l := startLoop(t)
	c := listenPacket(t, l, "udp4", "127.0.0.1:0")
	buf := make([]byte, 10)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, _, err := c.ReadFrom(buf)
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})

	to := net.UDPAddrFromAddrPort(c.LocalAddr().(*net.UDPAddr).AddrPort())
	for what, f := range map[string]func() error{
		"a TCP address":  func() error { return second(c.WriteTo(buf, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})) },
		"no address":     func() error { return second(c.WriteTo(buf, nil)) },
		"no port":        func() error { return second(c.WriteTo(buf, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})) },
		"another family": func() error { return second(c.WriteTo(buf, &net.UDPAddr{IP: net.IPv6loopback, Port: 1})) },
	} {
		var ae *net.AddrError
		if err := f(); !errors.As(err, &ae) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.WriteTo(make([]byte, 65508), to); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a datagram that is too long: %v", err)
	}

	read := make(chan error, 1)
	go func() {
		_, _, err := c.ReadFrom(make([]byte, 1))
		read <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"the read in progress": <-read, "write": second(c.WriteTo(buf, to)), "close": c.Close(), "deadline": c.SetDeadline(time.Time{}),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
}

// TestPacketFlood: many writers and a reader that comes late. What is kept is
// bounded, nothing that arrives is damaged, and the endpoint goes on afterwards.
func TestPacketFlood(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		from, to := newLoop(t), newLoop(t)
		a, b := listenPacket(t, from, "udp4", "127.0.0.1:0"), listenPacket(t, to, "udp4", "127.0.0.1:0")
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := range 2000 {
					if _, err := a.WriteTo(fmt.Appendf(nil, "%d %d %s", w, i, bytes.Repeat([]byte{byte('a' + w)}, 500)), b.LocalAddr()); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		last := [4]int{-1, -1, -1, -1}
		got := 0
		buf := make([]byte, 2000)
		_ = b.SetReadDeadline(soon())
		for {
			n, _, err := b.ReadFrom(buf)
			// The network may lose what it has no room for: the end is a silence.
			_ = b.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			var w, i int
			var fill string
			if _, err := fmt.Sscanf(string(buf[:n]), "%d %d %s", &w, &i, &fill); err != nil || len(fill) != 500 || fill[0] != byte('a'+w) {
				t.Fatalf("a datagram is damaged: %q", buf[:n])
			}
			if i <= last[w] {
				t.Fatalf("writer %d: %d after %d", w, i, last[w])
			}
			last[w] = i
			got++
		}
		if got == 0 {
			t.Fatal("nothing arrived")
		}
		_ = b.SetReadDeadline(soon())
		go echoPackets(b)
		// It was no silence where the loop had to wait: some of the flood may come before,
		// and leave no room.
		for n, end := 0, soon(); string(buf[:n]) != "still there?"; {
			if _, err := a.WriteTo([]byte("still there?"), b.LocalAddr()); err != nil {
				t.Fatal(err)
			}
			_ = a.SetReadDeadline(time.Now().Add(time.Second))
			var err error
			if n, _, err = a.ReadFrom(buf); err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end)) {
				t.Fatalf("it does not go on: %v", err)
			}
		}
	})
}

// TestPacketConnSim: the same over the simulator's network.
func TestPacketConnSim(t *testing.T) {
	l, stop := simLoop(t)
	defer stop()
	a, b := listenPacket(t, l, "udp4", "127.0.0.1:0"), listenPacket(t, l, "udp4", "127.0.0.1:0")
	go echoPackets(b)
	buf := make([]byte, 2000)
	for i := range 100 {
		if _, err := a.WriteTo(pattern(i), b.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if n, _, err := a.ReadFrom(buf); err != nil || !bytes.Equal(buf[:n], pattern(i)) {
			t.Fatalf("%d: %d bytes, %v", i, n, err)
		}
	}
}
