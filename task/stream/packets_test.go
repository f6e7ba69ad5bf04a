package stream_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
	"github.com/weir-io/weir/task/stream"
)

// Datagrams, read by a coroutine: whole, empty, truncated, and in time.
func TestPackets(t *testing.T) {
	w := newWorld(t, 1)
	server, err := stream.ListenPacket(w.server, "udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	client, err := stream.ListenPacket(w.client, "udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	w.ss.Go("echo", func(t *task.Task) error {
		b := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(t, b)
			if errors.Is(err, weir.ErrClosed) {
				return nil
			}
			if err != nil && !errors.Is(err, weir.ErrTruncated) {
				return err
			}
			if err := errors.Join(server.SendTo(b[:n], from), server.Drain(t)); err != nil {
				return err
			}
		}
	})
	to := weir.PacketAddr{IP: netip.MustParseAddrPort(w.sim.Host("server").Addr(53))}
	err = w.run(func(t *task.Task) error {
		big := bytes.Repeat([]byte("x"), 500)
		for _, p := range [][]byte{[]byte("hello"), {}, big} {
			if err := client.SendTo(p, to); err != nil {
				return err
			}
		}
		// The first is read as it comes, the others after they have been there for a
		// while.
		b := make([]byte, 100)
		n, from, err := client.ReadFrom(t, b)
		if string(b[:n]) != "hello" || err != nil || from != to {
			w.Errorf("%q from %v: %v", b[:n], from, err)
		}
		if err := t.Sleep(time.Second); err != nil {
			return err
		}
		if n, _, err := client.ReadFrom(t, b); n != 0 || err != nil {
			w.Errorf("the empty one: %d %v", n, err)
		}
		if n, _, err := client.ReadFrom(t, b[:50]); n != 50 || !errors.Is(err, weir.ErrTruncated) {
			w.Errorf("the long one: %d %v", n, err)
		}
		// A read that is cut short loses nothing.
		err = t.With(func(sc *task.Scope) error {
			_, _, err := client.ReadFrom(t, b)
			return err
		}, task.Within(time.Second))
		if !errors.Is(err, future.ErrTimeout) {
			w.Error(err)
		}
		if err := client.SendTo([]byte("again"), to); err != nil {
			return err
		}
		if n, _, err := client.ReadFrom(t, b); string(b[:n]) != "again" || err != nil {
			w.Errorf("%q %v", b[:n], err)
		}
		// No one is there: the failure is reported, if the network reports it.
		nobody := weir.PacketAddr{IP: netip.AddrPortFrom(to.IP.Addr(), 54)}
		if err := client.SendTo([]byte("?"), nobody); err != nil {
			return err
		}
		err = t.With(func(*task.Scope) error {
			_, _, err := client.ReadFrom(t, b)
			return err
		}, task.Within(time.Second))
		var refused *stream.PacketError
		if !errors.As(err, &refused) && !errors.Is(err, future.ErrTimeout) || refused != nil && refused.To != nobody {
			w.Error(err)
		}
		t.Go("closes", func(t *task.Task) error {
			if err := t.Sleep(time.Second); err != nil {
				return err
			}
			return errors.Join(client.Close(), client.Close())
		})
		_, _, err = client.ReadFrom(t, b)
		if e := client.Closed(t); e != nil {
			w.Error(e)
		}
		return err
	})
	if !errors.Is(err, weir.ErrClosed) {
		t.Error(err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	w.rest()
	if w.ss.Tasks() != 0 || len(w.errs) > 0 {
		t.Error(w.ss, w.errs)
	}
}

// Unread datagrams are bounded, and none of them is lost.
func TestPacketsAreKept(t *testing.T) {
	w := newWorld(t, 1)
	server, err := stream.ListenPacket(w.server, "udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	client, err := stream.ListenPacket(w.client, "udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	to := weir.PacketAddr{IP: netip.MustParseAddrPort(w.sim.Host("server").Addr(53))}
	const n = 100
	w.cs.Go("sends", func(t *task.Task) error {
		for i := range n {
			if err := client.SendTo(bytes.Repeat([]byte{byte(i)}, 1000), to); err != nil {
				return err
			}
			if err := t.Sleep(time.Millisecond); err != nil {
				return err
			}
		}
		return client.Close()
	})
	w.rest()
	w.ss.Go("reads", func(t *task.Task) error {
		b := make([]byte, 1000)
		for i := range n {
			m, _, err := server.ReadFrom(t, b)
			if err != nil || m != 1000 || b[0] != byte(i) {
				w.Errorf("datagram %d: %d bytes of %d: %v", i, m, b[0], err)
				return err
			}
		}
		return server.Close()
	})
	w.rest()
	if w.ss.Tasks() != 0 {
		t.Error(w.ss)
		_ = server.Close()
		w.rest()
	}
}
