package netconn_test

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
	"github.com/weir-io/weir/weirtest"
)

func connectPacket(t testing.TB, l *weir.Loop, network, address string) *netconn.PacketConn {
	t.Helper()
	c := on(t, l, func() (*netconn.PacketConn, error) { return netconn.ConnectPacket(l, network, address) })
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(soon())
	return c
}

// TestConnectPacket: a conn with a peer is a net.Conn, and sends nowhere else; one without has
// no peer to write to (R50).
func TestConnectPacket(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		for network, address := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0", "unixgram": filepath.Join(t.TempDir(), "a")} {
			t.Run(network, func(t *testing.T) {
				if network == "unixgram" && runtime.GOOS != "linux" {
					t.Skip("a connected socket has no address to answer to")
				}
				l := newLoop(t)
				server, other := listenPacket(t, l, network, address), listenPacket(t, l, network, address+map[bool]string{true: "2"}[network == "unixgram"])
				go echoPackets(server)
				var c net.Conn = connectPacket(t, l, network, server.LocalAddr().String())
				if a := c.RemoteAddr(); a == nil || a.String() != server.LocalAddr().String() {
					t.Errorf("connected to %v, not %v", a, server.LocalAddr())
				}
				pc := c.(net.PacketConn)
				p := make([]byte, 100)
				for _, send := range []func() (int, error){
					func() (int, error) { return c.Write([]byte("hello")) },
					func() (int, error) { return pc.WriteTo([]byte("hello"), server.LocalAddr()) },
					func() (int, error) {
						to := server.LocalAddr()
						if a, ok := to.(*net.UDPAddr); ok {
							to = &net.UDPAddr{IP: a.IP.To16(), Port: a.Port}
						}
						return pc.WriteTo([]byte("hello"), to)
					},
				} {
					if n, err := send(); n != 5 || err != nil {
						t.Fatal(n, err)
					}
					if n, err := c.Read(p); err != nil || string(p[:n]) != "hello" {
						t.Fatalf("%q, %v", p[:n], err)
					}
				}
				if _, err := pc.WriteTo(p, other.LocalAddr()); !errors.Is(err, net.ErrWriteToConnected) {
					t.Errorf("to another address: %v", err)
				}
				if server.RemoteAddr() != nil {
					t.Errorf("a conn without a peer has %v", server.RemoteAddr())
				}
				if _, err := server.Write(p); !errors.Is(err, syscall.EDESTADDRREQ) {
					t.Errorf("without a peer: %v", err)
				}
			})
		}
	})
}

// TestPacketRefused: a refusal by the peer's host is the error of a read that waits, or else
// of the next write, and of one call only; a conn without a peer goes on (R57, behaviour 58).
func TestPacketRefused(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		for network, address := range map[string]string{"udp4": "127.0.0.1:0", "udp6": "[::1]:0"} {
			t.Run(network, func(t *testing.T) {
				l := newLoop(t)
				gone, err := net.ListenPacket(network, address)
				if err != nil {
					t.Fatal(err)
				}
				at := gone.LocalAddr()
				_ = gone.Close()
				c := connectPacket(t, l, network, at.String())
				read := make(chan error, 1)
				go func() {
					_, err := c.Read(make([]byte, 10))
					read <- err
				}()
				write := func() {
					if _, err := c.Write([]byte("?")); err != nil {
						t.Fatalf("a write that nothing is known of: %v", err)
					}
				}
				write()
				err = <-read
				if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "read" || op.Addr == nil || op.Addr.String() != at.String() || !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a read that waits: %v", err)
				}
				write() // it was told once
				for err = nil; err == nil; runtime.Gosched() {
					_, err = c.Write([]byte("?"))
				}
				if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "write" || !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a write after a refusal: %v", err)
				}

				all := listenPacket(t, l, network, address)
				if _, err := all.WriteTo([]byte("?"), at); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if _, err := all.WriteTo([]byte("to itself"), all.LocalAddr()); err != nil {
						t.Errorf("a write of a conn without a peer: %v", err)
					}
					if _, _, err := all.ReadFrom(make([]byte, 10)); err != nil {
						t.Errorf("a read of a conn without a peer: %v", err)
					}
				}
			})
		}
	})
}

// TestPacketTooLong: once a router has said which length passes to a host, longer datagrams
// to it fail at once, whatever port they are for; shorter ones, and those to others, do not.
// After a minute it is tried again (R50, behaviour 58).
func TestPacketTooLong(t *testing.T) {
	const mtu = 1000
	const fit = mtu - 20 - 8
	synctest.Test(t, func(t *testing.T) {
		s := weirtest.NewSim(t, 1, weirtest.WithGoroutines(), weirtest.WithFaults(weirtest.Faults{MTU: mtu}))
		l, far, further := s.Host("near").Loop(), s.Host("far").Addr(7), s.Host("further").Addr(7)
		over := make(chan error, 1)
		go func() { over <- l.Run() }()
		open := func(opts ...weir.PacketOption) *netconn.PacketConn {
			c, err := netconn.Call(t.Context(), l, func() (*netconn.PacketConn, error) {
				return netconn.ListenPacket(l, "udp4", "0.0.0.0:0", opts...)
			})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		write := func(c *netconn.PacketConn, to string, n int) error {
			_, err := c.WriteTo(make([]byte, n), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
			synctest.Wait() // until the news has come back
			return err
		}
		c := open(weir.WithDontFragment())
		defer c.Close()
		if err := write(c, far, fit+1); err != nil {
			t.Fatalf("the first: %v", err)
		}
		for range 2 {
			err := write(c, far, fit+1)
			if long, ok := errors.AsType[*weir.MTUError](err); !ok || !errors.Is(err, syscall.EMSGSIZE) || long.MTU != mtu || long.Most != fit {
				t.Errorf("one byte too many: %v", err)
			}
		}
		if err := write(c, far, fit); err != nil {
			t.Errorf("one that fits: %v", err)
		}
		if err := write(c, further, fit+1); err != nil {
			t.Errorf("to another host: %v", err)
		}
		<-time.After(time.Minute)
		if err := write(c, far, fit+1); err != nil {
			t.Errorf("after a minute: %v", err)
		}
		// The host has not forgotten: it refuses this one, which it need not say twice.
		if err := write(c, far, fit+1); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("what the host refuses: %v", err)
		}
		if err := write(c, far, fit); err != nil {
			t.Errorf("one that fits: %v", err)
		}

		plain := open()
		defer plain.Close()
		for range 2 {
			if err := write(plain, far, fit+1); err != nil {
				t.Errorf("in fragments: %v", err)
			}
		}
		l.Stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

// TestPacketGroups: a conn joins a group while others read from it, and leaves it (R51).
func TestPacketGroups(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		group, source := netip.MustParseAddr("239.7.7.7"), netip.MustParseAddr("127.0.0.1")
		c := listenPacket(t, l, "udp4", "0.0.0.0:0")
		at := weir.PacketAddr{IP: netip.AddrPortFrom(group, uint16(c.LocalAddr().(*net.UDPAddr).Port))}
		sender := on(t, l, func() (*netconn.PacketConn, error) {
			return netconn.ListenPacket(l, "udp4", "127.0.0.1:0", weir.WithMulticastDevice("lo"))
		})
		defer sender.Close()
		got := make(chan string, 10)
		go func() {
			p := make([]byte, 100)
			for {
				n, _, err := c.ReadFrom(p)
				if err != nil {
					close(got)
					return
				}
				got <- string(p[:n])
			}
		}()
		// say sends to the group and then to c alone, and returns what came before that.
		say := func(text string) (all []string) {
			for _, to := range []weir.PacketAddr{at, {IP: netip.AddrPortFrom(source, at.IP.Port())}} {
				if _, err := sender.WritePacket([]byte(text), to); err != nil {
					t.Fatal(err)
				}
				text = "."
			}
			for m := range got {
				if m == "." {
					return all
				}
				all = append(all, m)
			}
			t.Fatal("the conn ended")
			return nil
		}
		steps := []struct {
			what string
			do   func() error
			want int
		}{
			{"in no group", func() error { return nil }, 0},
			{"in the group", func() error { return c.JoinGroup(group, "lo") }, 1},
			{"out of it", func() error { return c.LeaveGroup(group, "lo") }, 0},
			{"with one source", func() error { return c.JoinSource(group, source, "lo") }, 1},
			{"without it", func() error { return c.LeaveSource(group, source, "lo") }, 0},
		}
		for _, step := range steps {
			err := step.do()
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
			if all := say(step.what); len(all) != step.want {
				t.Errorf("%s: %q came", step.what, all)
			}
		}
		if err := c.LeaveGroup(group, "lo"); err == nil {
			t.Error("a group that it is not in could be left")
		}
		_ = c.Close()
		if err := c.JoinGroup(group, "lo"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
