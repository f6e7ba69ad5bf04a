package netconn_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// control is a control message with the bytes of data.
func control(level, kind int32, data []byte) []byte {
	m := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(m, uint64(unix.CmsgLen(len(data)))) // of a machine with 64 bits
	binary.NativeEndian.PutUint32(m[8:], uint32(level))
	binary.NativeEndian.PutUint32(m[12:], uint32(kind))
	copy(m[unix.CmsgLen(0):], data)
	return m
}

// controlsOf returns the control messages in oob by their level and type.
func controlsOf(t *testing.T, oob []byte) map[[2]int32][]byte {
	t.Helper()
	ms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	all := map[[2]int32][]byte{}
	for _, m := range ms {
		all[[2]int32{m.Header.Level, m.Header.Type}] = m.Data
	}
	return all
}

var (
	pktinfo4 = [2]int32{unix.IPPROTO_IP, unix.IP_PKTINFO}
	pktinfo6 = [2]int32{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}
	tos      = [2]int32{unix.IPPROTO_IP, unix.IP_TOS}
	tclass   = [2]int32{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}
)

// rawSocket is package net's UDP socket, which is told of every traffic class.
func rawSocket(t *testing.T, network, host string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP(network, &net.UDPAddr{IP: net.ParseIP(host)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(soon())
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPacketMessages: ReadMsgUDP tells which address was asked, by which interface and
// with which traffic class, in the kernel's own form; WriteMsgUDP answers from
// there, with a traffic class, as several datagrams if asked to (R57, R77).
func TestPacketMessages(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		if p := l.Backend().Packets; !p.Local || !p.Traffic {
			t.Skip("the backend does not tell (BackendInfo.Packets)")
		}
		for _, network := range []string{"udp4", "udp6"} {
			t.Run(network, func(t *testing.T) {
				hosts, info, class := []string{"127.0.0.1", "127.0.0.2"}, pktinfo4, tos
				if network == "udp6" {
					hosts, info, class = []string{"::1"}, pktinfo6, tclass
				}
				server := listenPacket(t, l, "udp", ":0")
				port := server.LocalAddr().(*net.UDPAddr).Port
				for _, host := range hosts {
					client := rawSocket(t, network, hosts[0])
					asked := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))
					ect := control(class[0], class[1], binary.NativeEndian.AppendUint32(nil, 2))
					if _, _, err := client.WriteMsgUDPAddrPort([]byte("which?"), ect, asked); err != nil {
						t.Fatal(err)
					}
					b, oob := make([]byte, 100), make([]byte, 128)
					n, oobn, flags, from, err := server.ReadMsgUDP(b, oob)
					if err != nil || string(b[:n]) != "which?" || flags != 0 || from.Port != client.LocalAddr().(*net.UDPAddr).Port {
						t.Fatalf("%q, flags %x, from %v, %v", b[:n], flags, from, err)
					}
					got := controlsOf(t, oob[:oobn])
					if c := got[class]; len(c) == 0 || c[0] != 2 {
						t.Errorf("traffic class % x", c)
					}
					want := asked.Addr().AsSlice()
					d := got[info]
					switch {
					case network == "udp4" && (len(d) != 12 || string(d[8:]) != string(want) || binary.NativeEndian.Uint32(d) == 0),
						network == "udp6" && (len(d) != 20 || string(d[:16]) != string(want) || binary.NativeEndian.Uint32(d[16:]) == 0):
						t.Errorf("asked at %v: % x", asked, d)
					}

					answer := control(info[0], info[1], d)
					answer = append(answer, control(class[0], class[1], binary.NativeEndian.AppendUint32(nil, 1))...)
					answer = append(answer, control(unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, 4))...)
					if n, oobn, err := server.WriteMsgUDP([]byte("one.two.3"), answer, from); err != nil || n != 9 || oobn != len(answer) {
						t.Fatal(n, oobn, err)
					}
					for _, want := range []string{"one.", "two.", "3"} {
						n, oobn, _, from, err := client.ReadMsgUDPAddrPort(b, oob)
						if err != nil || string(b[:n]) != want || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != asked {
							t.Fatalf("%q, not %q, from %v, not %v, %v", b[:n], want, from, asked, err)
						}
						if c := controlsOf(t, oob[:oobn])[class]; len(c) == 0 || c[0] != 1 {
							t.Errorf("traffic class of the answer: % x", c)
						}
					}
				}
			})
		}
	})
}

// TestPacketMessagesBounded: what has no room is said, what is not understood is
// refused.
func TestPacketMessagesBounded(t *testing.T) {
	l := startLoop(t)
	a, b := listenPacket(t, l, "udp4", "127.0.0.1:0"), listenPacket(t, l, "udp4", "127.0.0.1:0")
	to := b.LocalAddr().(*net.UDPAddr)
	segment := func(n uint16) []byte {
		return control(unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, n))
	}
	if _, _, err := a.WriteMsgUDP([]byte("longer"), nil, to); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4)
	if n, oobn, flags, _, err := b.ReadMsgUDP(p, make([]byte, 10)); err != nil || n != 4 || oobn != 0 || flags != unix.MSG_TRUNC|unix.MSG_CTRUNC {
		t.Errorf("read %d and %d bytes, flags %x, %v", n, oobn, flags, err)
	}
	for what, oob := range map[string][]byte{
		"half a message":      segment(4)[:unix.SizeofCmsghdr-1],
		"another message":     control(unix.SOL_SOCKET, unix.SCM_RIGHTS, make([]byte, 4)),
		"a short address":     control(unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 11)),
		"a length of nothing": make([]byte, unix.SizeofCmsghdr),
		"too many segments":   segment(1),
	} {
		if _, _, err := a.WriteMsgUDP(make([]byte, 200), oob, to); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := a.WriteMsgUDP(nil, segment(100), to); err != nil {
		t.Errorf("an empty datagram in segments: %v", err)
	}
	if n, _, _, _, err := b.ReadMsgUDP(p, nil); n != 0 || err != nil {
		t.Errorf("an empty datagram: %d bytes, %v", n, err)
	}
	if _, _, err := a.WriteMsgUDP(nil, nil, nil); err == nil {
		t.Error("no address could be sent to")
	}
}

// TestPacketBatch: ReadBatch takes what is there, and the descriptor cannot be read
// past the loop (R57).
func TestPacketBatch(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		a, b := listenPacket(t, l, "udp4", "127.0.0.1:0"), listenPacket(t, l, "udp4", "127.0.0.1:0")
		const n = 20
		for i := range n {
			if _, err := a.WriteTo(fmt.Appendf(nil, "datagram %02d", i), b.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		ms := make([]ipv4.Message, 8)
		for i := range ms {
			ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 9), make([]byte, 100)}, make([]byte, 128)
		}
		for i := 0; i < n; {
			k, err := b.ReadBatch(ms, 0)
			if err != nil || k == 0 {
				t.Fatal(k, err)
			}
			for _, m := range ms[:k] {
				if got, want := string(m.Buffers[0])+string(m.Buffers[1][:m.N-9]), fmt.Sprintf("datagram %02d", i); got != want ||
					m.Addr.String() != a.LocalAddr().String() || m.Flags != 0 {
					t.Fatalf("%q, not %q, from %v, flags %x", got, want, m.Addr, m.Flags)
				}
				i++
			}
		}
		if _, err := b.ReadBatch(ms, unix.MSG_PEEK); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("ReadBatch with flags: %v", err)
		}
		rc, err := b.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"read":  rc.Read(func(uintptr) bool { t.Error("read past the loop"); return true }),
			"write": rc.Write(func(uintptr) bool { t.Error("written past the loop"); return true }),
		} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// TestPacketBuffers: the system's buffers can be set and seen from any goroutine, until
// the close; a descriptor is not closed while it is used.
func TestPacketBuffers(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		c := listenPacket(t, newLoop(t), "udp4", "127.0.0.1:0")
		rc, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		size := func(name int) (n int) {
			var errno error
			if err := rc.Control(func(fd uintptr) { n, errno = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, name) }); err != nil || errno != nil {
				t.Fatal(err, errno)
			}
			return n
		}
		for _, bytes := range []int{10_000, 30_000} {
			if err := errors.Join(c.SetReadBuffer(bytes), c.SetWriteBuffer(bytes)); err != nil {
				t.Fatal(err)
			}
			if r, w := size(unix.SO_RCVBUF), size(unix.SO_SNDBUF); r != 2*bytes || w != 2*bytes { // socket(7): doubled
				t.Errorf("%d bytes asked for, %d and %d there", bytes, r, w)
			}
		}
		if _, ok := errors.AsType[*weir.OptionError](c.SetReadBuffer(-1)); !ok {
			t.Error("a buffer of -1 bytes can be set")
		}

		inside, closing, closed := make(chan bool), make(chan bool), make(chan bool)
		go func() {
			<-inside
			_ = c.Close()
			close(closing)
		}()
		go func() {
			defer close(closed)
			_, _, _ = c.ReadFrom(nil) // ends with the close
		}()
		if err := rc.Control(func(fd uintptr) {
			close(inside)
			<-closing
			<-closed
			for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
				if _, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
					t.Error("the descriptor was closed meanwhile: ", err)
					return
				}
			}
		}); err != nil {
			t.Error(err)
		}
		// Close is carried out by the loop, soon after.
		for end := soon(); ; {
			err := c.SetReadBuffer(10_000)
			if errors.Is(err, net.ErrClosed) {
				break
			}
			if err != nil || time.Now().After(end) {
				t.Fatalf("after Close: %v", err)
			}
		}
		if err := rc.Control(func(uintptr) { t.Error("called") }); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Control after Close: %v", err)
		}
	})
}

// TestPacketInfoOfConn: what is known of a datagram is there without control messages
// too.
func TestPacketInfoOfConn(t *testing.T) {
	onBackends(t, func(t *testing.T, _ string, newLoop func(testing.TB) *weir.Loop) {
		l := newLoop(t)
		if !l.Backend().Packets.Local {
			t.Skip("the backend does not tell local addresses (BackendInfo.Packets)")
		}
		server, client := listenPacket(t, l, "udp4", ":0"), listenPacket(t, l, "udp4", "127.0.0.1:0")
		at := weir.PacketAddr{IP: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), uint16(server.LocalAddr().(*net.UDPAddr).Port))}
		if _, err := client.WritePacket([]byte("?"), at); err != nil {
			t.Fatal(err)
		}
		var info weir.PacketInfo
		p := make([]byte, 10)
		n, from, err := server.ReadPacketInfo(p, &info)
		if err != nil || n != 1 || info.Local != at.IP.Addr() {
			t.Fatal(n, info, err)
		}
		if _, err := server.WritePacketInfo(p[:n], from, &info); err != nil {
			t.Fatal(err)
		}
		if _, from, err = client.ReadPacket(p); err != nil || from != at {
			t.Errorf("%v asked, %v answers, %v", at, from, err)
		}
	})
}

var _ interface {
	net.PacketConn
	SyscallConn() (syscall.RawConn, error)
	SetReadBuffer(int) error
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
} = (*netconn.PacketConn)(nil)
