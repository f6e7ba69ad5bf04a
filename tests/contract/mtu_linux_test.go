package contract

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// checksum is that of RFC 1071, over pieces of an even length but the last.
func checksum(pieces ...[]byte) uint16 {
	sum := uint32(0)
	for _, p := range pieces {
		for i, b := range p {
			sum += uint32(b) << (8 * ((i + 1) % 2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// tooBig is the answer of a router to an IP packet that the next link is too small for:
// "fragmentation needed" of RFC 1191, or "packet too big" of RFC 8201.
func tooBig(packet []byte, mtu uint16) []byte {
	if packet[0]>>4 == 4 {
		quoted := packet[:min(len(packet), 60)]
		icmp := append([]byte{3, 4, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, quoted...)
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
		h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_ICMP, 0, 0, 10, 9, 0, 254}
		h = append(h, packet[12:16]...)
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(icmp)))
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, icmp...)
	}
	quoted := packet[:min(len(packet), 100)]
	icmp := append([]byte{2, 0, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, quoted...)
	router := netip.MustParseAddr("2001:db8:9::fe").AsSlice()
	pseudo := append(append([]byte{}, router...), packet[8:24]...)
	pseudo = append(pseudo, 0, 0, byte(len(icmp)>>8), byte(len(icmp)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(pseudo, icmp))
	h := []byte{0x60, 0, 0, 0, byte(len(icmp) >> 8), byte(len(icmp)), unix.IPPROTO_ICMPV6, 64}
	h = append(append(h, router...), packet[8:24]...)
	return append(h, icmp...)
}

// tunnel makes a network device whose packets the test reads and answers.
func tunnel(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no tunnels: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	req, err := unix.NewIfreq("t0")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Skipf("no tunnels: %v", err)
	}
	for _, line := range []string{"link set t0 up mtu 1500", "addr add 10.9.0.1/24 dev t0", "-6 addr add 2001:db8:9::1/64 dev t0 nodad"} {
		ip(t, line)
	}
	settle(t)
	return fd
}

// TestPathMTU: a router says that a datagram is too long for the next link. The protocol
// is told so, with the size that fits and the peer, and longer datagrams to that peer then
// fail at once, unless they may be sent in fragments (R50, behaviour 58).
func TestPathMTU(t *testing.T) {
	inNamespace(t, nil, func(t *testing.T, l *weir.Loop, _ *names) {
		fd := tunnel(t)
		buf := make([]byte, 2000)
		// leaves waits for a UDP datagram that leaves by the tunnel.
		version := byte(0)
		leaves := func(what string) (packet []byte) {
			turns(t, l, what, func() bool {
				n, err := unix.Read(fd, buf)
				if err != nil || buf[0]>>4 != version {
					return false
				}
				switch p := buf[:n]; {
				case p[0]>>4 == 4 && p[9] == unix.IPPROTO_UDP, p[0]>>4 == 6 && p[6] == unix.IPPROTO_UDP, p[0]>>4 == 6 && p[6] == unix.IPPROTO_FRAGMENT:
					packet = p
				}
				return packet != nil
			})
			return packet
		}
		for _, c := range []struct {
			network, local, peer, third, fourth string
			header, mtu                         int
		}{
			{"udp4", "10.9.0.1:0", "10.9.0.2:9", "10.9.0.3:9", "10.9.0.4:9", 28, 1300},
			{"udp6", "[2001:db8:9::1]:0", "[2001:db8:9::2]:9", "[2001:db8:9::3]:9", "[2001:db8:9::4]:9", 48, 1290},
		} {
			version = 4
			if c.network == "udp6" {
				version = 6
			}
			p := &packets{}
			e, err := l.ListenPacket(c.network, c.local, p, weir.WithDontFragment())
			if err != nil {
				t.Fatal(err)
			}
			to := weir.PacketAddr{IP: netip.MustParseAddrPort(c.peer)}
			if err := e.SendTo(make([]byte, 1400), to); err != nil {
				t.Fatal(err)
			}
			packet := leaves("a long datagram")
			if len(packet) != 1400+c.header || packet[0]>>4 == 4 && packet[6]&0x40 == 0 {
				t.Fatalf("%s: a packet of %d bytes left, % x", c.network, len(packet), packet[:20])
			}
			if _, err := unix.Write(fd, tooBig(packet, uint16(c.mtu))); err != nil {
				t.Fatal(err)
			}
			turns(t, l, "the router's answer", func() bool { return len(p.failed) > 0 })
			if mtu, ok := errors.AsType[*weir.MTUError](p.failed[0]); !ok || mtu.MTU != c.mtu || mtu.Most != c.mtu-c.header || p.about[0] != to || !errors.Is(p.failed[0], syscall.EMSGSIZE) {
				t.Errorf("%s: told %v about %v", c.network, p.failed[0], p.about[0])
			}
			err = e.SendTo(make([]byte, 1400), to)
			if mtu, ok := errors.AsType[*weir.MTUError](err); !ok || mtu.Most != 1399 {
				t.Errorf("%s: a datagram that is known to be too long: %v", c.network, err)
			}
			if err := e.SendTo(make([]byte, c.mtu-c.header), to); err != nil {
				t.Errorf("%s: a datagram that fits: %v", c.network, err)
			}
			if packet := leaves("a datagram that fits"); len(packet) != c.mtu {
				t.Errorf("%s: a packet of %d bytes left, not %d", c.network, len(packet), c.mtu)
			}
			if len(p.failed) != 1 {
				t.Errorf("%s: told %v", c.network, p.failed)
			}

			plain, err := l.ListenPacket(c.network, c.local, &packets{})
			if err != nil {
				t.Fatal(err)
			}
			if err := plain.SendTo(make([]byte, 1400), to); err != nil {
				t.Errorf("%s: in fragments: %v", c.network, err)
			}
			if packet := leaves("a fragment"); len(packet) > c.mtu {
				t.Errorf("%s: a fragment of %d bytes", c.network, len(packet))
			}
			e.Abort()
			plain.Abort()

			// The same of a net.PacketConn, which learns of it later; a socket that finds the
			// length itself does not believe routers.
			for probes, peer := range []string{c.third, c.fourth} {
				conn, err := netconn.ListenPacket(l, c.network, c.local, weir.WithDontFragment())
				if err != nil {
					t.Fatal(err)
				}
				if probes == 1 {
					probe(t, conn, c.network)
				}
				to := weir.PacketAddr{IP: netip.MustParseAddrPort(peer)}
				write := func(n int) error {
					_, err := conn.WritePacket(make([]byte, n), to)
					return err
				}
				if err := write(1400); err != nil {
					t.Fatal(err)
				}
				packet := leaves("a long datagram of a conn")
				for len(packet) != 1400+c.header { // another fragment
					packet = leaves("a long datagram of a conn")
				}
				if _, err := unix.Write(fd, tooBig(packet, uint16(c.mtu))); err != nil {
					t.Fatal(err)
				}
				if probes == 1 {
					for range 3 {
						if err := write(1400); err != nil {
							t.Errorf("%s: a probe: %v", c.network, err)
						}
						if packet := leaves("a probe"); len(packet) != 1400+c.header {
							t.Errorf("%s: a packet of %d bytes left", c.network, len(packet))
						}
					}
				} else {
					turns(t, l, "an error", func() bool { return write(c.mtu-c.header+1) != nil })
					if err := write(c.mtu - c.header + 1); !errors.Is(err, syscall.EMSGSIZE) {
						t.Errorf("%s: a datagram that is known to be too long: %v", c.network, err)
					}
					if err := write(c.mtu - c.header); err != nil {
						t.Errorf("%s: a datagram that fits: %v", c.network, err)
					}
					for packet := leaves("a datagram that fits"); len(packet) != c.mtu; packet = leaves("a datagram that fits") {
						if len(packet) > c.mtu {
							t.Errorf("%s: a packet of %d bytes left", c.network, len(packet))
						}
					}
				}
				_ = conn.Close()
				turns(t, l, "the close", func() bool { return errors.Is(conn.SetReadBuffer(10_000), net.ErrClosed) })
			}
		}
	})
}

// probe has a conn's socket find the length itself, as QUIC libraries do.
func probe(t *testing.T, c *netconn.PacketConn, network string) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	level, name, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if network == "udp6" {
		level, name, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	var set error
	if err := errors.Join(rc.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), level, name, value) }), set); err != nil {
		t.Fatal(err)
	}
}

// TestDatagramsDropped: what a full receive buffer loses is counted, and told with the
// next datagram that comes (R51).
func TestDatagramsDropped(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		if !l.Backend().Packets.Dropped {
			t.Skip("the backend does not tell (BackendInfo.Packets)")
		}
		p := &knowing{}
		e, err := l.ListenPacket("udp4", "127.0.0.1:0", p, weir.WithSocketBuffers(0, 20_000))
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.Local().IP))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		send := func(n int) {
			for range n {
				if _, err := c.Write(make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
			}
		}
		send(1)
		turns(t, l, "the first", func() bool { return len(p.got) == 1 })
		if p.infos[0].Dropped != 0 {
			t.Errorf("dropped at the beginning: %d", p.infos[0].Dropped)
		}
		e.PauseReading()
		turns(t, l, "a turn", func() bool { return true })
		sent := 1
		for range 3 { // more than any backend receives ahead
			send(1000)
			sent += 1000
		}
		e.ResumeReading()
		turns(t, l, "datagrams", func() bool { return len(p.got) > 1 })
		counted := func() bool { return len(p.got)+int(p.infos[len(p.infos)-1].Dropped) == sent }
		for tries := 0; !counted() && tries < 50; tries++ {
			send(1) // is lost too if it finds the buffer still full
			sent++
			late := false
			timer := l.After(100*time.Millisecond, func() { late = true })
			turns(t, l, "one more", func() bool { return late || counted() })
			timer.Stop()
		}
		if !counted() {
			t.Errorf("%d sent, %d received, %d told as dropped", sent, len(p.got), p.infos[len(p.infos)-1].Dropped)
		}
		if n := p.infos[len(p.infos)-1].Dropped; n == 0 {
			t.Error("nothing was dropped")
		}
	})
}
