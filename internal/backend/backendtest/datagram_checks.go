package backendtest

import (
	"bytes"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/weir-io/weir/internal/backend"
)

var (
	udp4     = network{name: "udp4", spec: backend.Spec{Family: backend.Inet, Datagram: true}, inet: true, local: loopback("127.0.0.1")}
	udp6     = network{name: "udp6", spec: backend.Spec{Family: backend.Inet, IPv6: true, Datagram: true}, inet: true, local: loopback("::1")}
	unixgram = network{name: "unixgram", spec: backend.Spec{Family: backend.Unix, Datagram: true}, local: func(r *rig) backend.Addr {
		return backend.Addr{Family: backend.Unix, Path: filepath.Join(r.t.TempDir(), "d")}
	}}
	datagramNetworks = []network{udp4, udp6, unixgram}
)

var datagramChecks = []check{
	{
		name:   "Datagram",
		reason: "a datagram arrives whole with its sender, and the answer goes back there (R50)",
		run:    onEach(datagramNetworks, checkDatagram),
	},
	{
		name:   "EmptyDatagram",
		reason: "an empty datagram is one, not an end (R51)",
		run:    onEach(datagramNetworks, checkEmptyDatagram),
	},
	{
		name:   "LargeDatagram",
		reason: "the largest datagrams pass, what is larger is an error about that one only (R51)",
		run:    onEach([]network{udp4}, checkLargeDatagram),
	},
	{
		name:   "TruncatedDatagram",
		reason: "a datagram that does not fit is flagged, and the next begins afresh (behaviour 58)",
		run:    onEach(datagramNetworks, checkTruncatedDatagram),
	},
	{
		name:   "ManyDatagrams",
		reason: "one submission serves a socket; datagrams keep their edges and, here, their order",
		run:    onEach(datagramNetworks, checkManyDatagrams),
	},
	{
		name:   "ManyPackets",
		reason: "many datagrams in one SendTo leave in order, with their edges, joined or not (R51)",
		run:    onEach(datagramNetworks, checkManyPackets),
	},
	{
		name:   "PacketRefused",
		reason: "an error of a SendTo of many is about the first, and the others can be sent",
		run:    onEach([]network{udp4}, checkPacketRefused),
	},
	{
		name:   "DatagramLocal",
		reason: "a socket for every address hears which was asked, and sends from the one it names (R77)",
		need: func(c backend.Caps) string {
			if c.Info&backend.InfoLocal == 0 {
				return "local addresses (Caps.Info)"
			}
			return ""
		},
		run: onEach([]network{udp4, udp6}, checkDatagramLocal),
	},
	{
		name:   "DatagramTraffic",
		reason: "the traffic class of each datagram passes, ECN with it (RFC 3168)",
		need: func(c backend.Caps) string {
			if c.Info&backend.InfoTraffic == 0 {
				return "traffic classes (Caps.Info)"
			}
			return ""
		},
		run: onEach([]network{udp4, udp6}, checkDatagramTraffic),
	},
	{
		name:   "DatagramPieces",
		reason: "the pieces of a SendTo are one datagram",
		run:    onEach(datagramNetworks, checkDatagramPieces),
	},
	{
		name:   "DatagramRefused",
		reason: "a refusal names the peer it is about, and the socket lives on (behaviour 57)",
		need: func(c backend.Caps) string {
			if !c.PeerErrors {
				return "errors with their peers (Caps.PeerErrors)"
			}
			return ""
		},
		run: onEach([]network{udp4, udp6}, checkDatagramRefused),
	},
	{
		name:   "DatagramUnbound",
		reason: "a socket that was not bound has a port from its first SendTo on",
		run:    onEach([]network{udp4, udp6}, checkDatagramUnbound),
	},
	{
		name:   "DatagramConnected",
		reason: "a connected socket sends to its peer, takes only what comes from there, and hears that it refuses",
		run:    onEach(datagramNetworks, checkDatagramConnected),
	},
	{
		name:   "DatagramDual",
		reason: "a socket of both families sends to IPv4, and its peers look like what they are",
		run:    checkDatagramDual,
	},
	{
		name:   "DatagramFamily",
		reason: "an address of another family is an error (behaviour 58)",
		run:    onEach([]network{udp4}, checkDatagramFamily),
	},
	{
		name:   "DatagramPorts",
		reason: "a port of TCP and one of UDP are two, and one that is taken is EADDRINUSE",
		run:    onEach([]network{udp4, udp6}, checkDatagramPorts),
	},
	{
		name:   "DatagramCancel",
		reason: "a RecvFrom that is canceled leaves what comes later for the next",
		run:    onEach(datagramNetworks, checkDatagramCancel),
	},
	{
		name:   "DatagramNow",
		reason: "RecvFrom with Now never waits",
		run:    onEach([]network{udp4}, checkDatagramNow),
	},
	{
		name:   "DatagramOps",
		reason: "one RecvFrom at a time, and what makes no sense is an error",
		run:    checkDatagramOps,
	},
}

// packet opens a datagram socket and returns its address.
func (r *rig) packet(n network, edit ...func(*backend.Spec)) (backend.Handle, backend.Addr) {
	r.t.Helper()
	edit = append([]func(*backend.Spec){func(s *backend.Spec) { s.Backlog = 0 }}, edit...)
	return r.listen(n, edit...)
}

func sendOp(h backend.Handle, to backend.Addr, pieces ...[]byte) *backend.Op {
	return &backend.Op{Kind: backend.SendTo, Handle: h, Addr: &to, Vec: pieces}
}

func recvOp(h backend.Handle, f backend.Flags) *backend.Op {
	return &backend.Op{Kind: backend.RecvFrom, Handle: h, Flags: f}
}

func (r *rig) send(h backend.Handle, to backend.Addr, p []byte) {
	r.t.Helper()
	if res := r.do(sendOp(h, to, p)); res.err != nil || res.n != len(p) {
		r.t.Fatalf("SendTo of %d bytes: %d, %v", len(p), res.n, res.err)
	}
}

func (r *rig) wantPacket(h backend.Handle, want []byte, from backend.Addr) {
	r.t.Helper()
	res := r.do(recvOp(h, 0))
	if res.err != nil || !bytes.Equal(res.data, want) || res.n != len(want) || res.truncated {
		r.t.Fatalf("RecvFrom: %d bytes, %v, truncated %t; want %d bytes", res.n, res.err, res.truncated, len(want))
	}
	if res.peer != from {
		r.t.Fatalf("sender %+v, want %+v", res.peer, from)
	}
}

func checkDatagram(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	if n.inet && aa.IP.Port() == 0 {
		r.t.Fatal("a bound socket's port is 0")
	}
	r.send(a, ba, []byte("question"))
	r.wantPacket(b, []byte("question"), aa)
	r.send(b, aa, []byte("answer"))
	r.wantPacket(a, []byte("answer"), ba)
	r.shut(a, backend.CloseFlat)
	r.shut(b, backend.CloseFlat)
}

func checkEmptyDatagram(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	r.send(a, ba, nil)
	r.send(a, ba, []byte("x"))
	r.send(a, ba, nil)
	r.wantPacket(b, nil, aa)
	r.wantPacket(b, []byte("x"), aa)
	r.wantPacket(b, nil, aa)
}

func checkLargeDatagram(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	const largest = 65507
	p := pattern(largest, 1)
	r.send(a, ba, p)
	r.wantPacket(b, p, aa)
	if res := r.do(sendOp(a, ba, pattern(largest+1, 1))); !errors.Is(res.err, syscall.EMSGSIZE) {
		r.t.Errorf("SendTo of %d bytes: %d, %v, want EMSGSIZE", largest+1, res.n, res.err)
	}
	r.send(a, ba, []byte("on"))
	r.wantPacket(b, []byte("on"), aa)
}

func checkTruncatedDatagram(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	for _, limited := range []bool{false, true} {
		r.send(a, ba, []byte("0123456789"))
		r.send(a, ba, []byte("abcd"))
		for _, want := range []result{{n: 4, data: []byte("0123"), truncated: true}, {n: 4, data: []byte("abcd")}} {
			op := recvOp(b, 0)
			if limited {
				op.Max = 4
			} else {
				op.Buf = make([]byte, 4)
			}
			res := r.do(op)
			if res.err != nil || res.n != want.n || !bytes.Equal(res.data, want.data) || res.truncated != want.truncated || res.peer != aa {
				r.t.Fatalf("limited %t: %+v, want %+v from %+v", limited, res, want, aa)
			}
		}
	}
}

func checkManyDatagrams(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	op := recvOp(b, backend.Multi)
	r.submit(op)
	const total, ahead = 300, 8
	got := 0
	take := func() {
		for len(r.got[op]) > 0 {
			res := r.take(op)
			if errors.Is(res.err, backend.ErrAgain) {
				continue
			}
			want := pattern(got%200, uint32(got))
			if res.err != nil || !bytes.Equal(res.data, want) || res.peer != aa {
				r.t.Fatalf("datagram %d: %d bytes, %v from %+v", got, res.n, res.err, res.peer)
			}
			got++
		}
		if !r.out[op] {
			r.submit(op)
		}
	}
	for i := range total {
		r.send(a, ba, pattern(i%200, uint32(i)))
		r.until("datagrams", func() bool { take(); return i-got < ahead })
	}
	r.until("datagrams", func() bool { take(); return got == total })
	r.cancel(op)
}

func checkManyPackets(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n, func(s *backend.Spec) { s.Coalesce = true })
	var all []backend.Packet
	for i := range 200 {
		size := 20
		if i%10 == 9 {
			size = i % 3 * 7
		}
		all = append(all, backend.Packet{Data: pattern(size, uint32(i)), To: ba})
	}
	op := recvOp(b, backend.Multi)
	r.submit(op)
	got := 0
	take := func() {
		for len(r.got[op]) > 0 {
			res := r.take(op)
			if errors.Is(res.err, backend.ErrAgain) {
				continue
			}
			if res.err != nil || res.truncated || res.peer != aa {
				r.t.Fatalf("datagram %d: %+v", got, res)
			}
			for first := true; first || len(res.data) > 0; first = false {
				p := res.data
				if res.segment > 0 {
					p = p[:min(res.segment, len(p))]
				}
				res.data = res.data[len(p):]
				if !bytes.Equal(p, all[got].Data) {
					r.t.Fatalf("datagram %d has %d bytes, want %d", got, len(p), len(all[got].Data))
				}
				got++
			}
		}
		if !r.out[op] {
			r.submit(op)
		}
	}
	for rest := all; len(rest) > 0; {
		// What a socket's default buffer takes.
		some := rest[:min(8, len(rest))]
		if len(rest)%3 > 0 {
			some = inSegments(some)
		}
		res := r.do(&backend.Op{Kind: backend.SendTo, Handle: a, Packets: &some})
		if res.err != nil || res.n < 1 || res.n > 8 {
			r.t.Fatalf("SendTo of many: %d, %v", res.n, res.err)
		}
		rest = rest[res.n:]
		r.until("datagrams", func() bool { take(); return got == len(all)-len(rest) })
	}
	r.cancel(op)
}

// inSegments makes one Packet of datagrams of one size, with a shorter one at the end.
func inSegments(all []backend.Packet) (joined []backend.Packet) {
	whole := false // others may be added to the last
	for _, p := range all {
		if n := len(joined) - 1; whole && 0 < len(p.Data) && len(p.Data) <= joined[n].Segment {
			whole = len(p.Data) == joined[n].Segment
			joined[n].Data = append(slices.Clip(joined[n].Data), p.Data...)
			continue
		}
		p.Segment, whole = len(p.Data), true
		joined = append(joined, p)
	}
	return joined
}

func checkPacketRefused(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	all := []backend.Packet{
		{Data: []byte("x"), To: backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(netip.IPv6Loopback(), 9)}},
		{Data: []byte("y"), To: ba},
	}
	if res := r.do(&backend.Op{Kind: backend.SendTo, Handle: a, Packets: &all}); res.err == nil {
		r.t.Fatalf("SendTo of an IPv6 address first on an IPv4 socket: %d, no error", res.n)
	}
	all[0], all[1] = all[1], all[0]
	if res := r.do(&backend.Op{Kind: backend.SendTo, Handle: a, Packets: &all}); res.err != nil || res.n != 1 {
		r.t.Fatalf("SendTo of an IPv6 address second: %d, %v, want 1", res.n, res.err)
	}
	r.wantPacket(b, []byte("y"), aa)
}

func checkDatagramLocal(r *rig, n network) {
	any, asked := netip.IPv4Unspecified(), []string{"127.0.0.1", "127.0.0.2"}
	if n.spec.IPv6 {
		any, asked = netip.IPv6Unspecified(), []string{"::1"}
	}
	for _, dual := range []bool{false, n.spec.IPv6} {
		if dual {
			asked = append(asked, "127.0.0.2")
		}
		a, aa := r.packet(n, func(s *backend.Spec) {
			s.Info, s.Dual = backend.InfoLocal, dual
			s.Local.IP = netip.AddrPortFrom(any, 0)
		})
		for _, host := range asked {
			ip := netip.MustParseAddr(host)
			from := udp4
			if ip.Is6() {
				from = udp6
			}
			b, ba := r.packet(from)
			at := backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(ip, aa.IP.Port())}
			r.send(b, at, []byte("which?"))
			res := r.do(recvOp(a, 0))
			if res.err != nil || string(res.data) != "which?" || res.info == nil || res.info.Local != ip || res.info.Dest != ip {
				r.t.Fatalf("asked at %v: %+v, info %+v", ip, res, res.info)
			}
			reply := backend.Packet{Data: []byte("this"), To: ba, Info: backend.PacketInfo{Local: ip}}
			if res := r.do(&backend.Op{Kind: backend.SendTo, Handle: a, Packets: &[]backend.Packet{reply}}); res.err != nil || res.n != 1 {
				r.t.Fatalf("SendTo from %v: %d, %v", ip, res.n, res.err)
			}
			r.wantPacket(b, []byte("this"), at)
			reply.Info.Local = netip.MustParseAddr("192.0.2.1")
			if ip.Is6() {
				reply.Info.Local = netip.MustParseAddr("2001:db8::77")
			}
			if res := r.do(&backend.Op{Kind: backend.SendTo, Handle: a, Packets: &[]backend.Packet{reply}}); res.err == nil {
				r.t.Errorf("SendTo from %v, which is not ours: no error", reply.Info.Local)
			}
		}
	}
}

func checkDatagramTraffic(r *rig, n network) {
	a, _ := r.packet(n)
	b, ba := r.packet(n, func(s *backend.Spec) { s.Info = backend.InfoTraffic })
	for _, class := range []uint8{0x03, 0xb8 | 1, 0} { // congested; expedited, ECT(1); none
		p := backend.Packet{Data: []byte("t"), To: ba, Info: backend.PacketInfo{Traffic: class, HasTraffic: true}}
		if res := r.do(&backend.Op{Kind: backend.SendTo, Handle: a, Packets: &[]backend.Packet{p}}); res.err != nil {
			r.t.Fatalf("SendTo with class %#x: %v", class, res.err)
		}
		res := r.do(recvOp(b, 0))
		if res.err != nil || res.info == nil || !res.info.HasTraffic || res.info.Traffic != class {
			r.t.Errorf("class %#x: %+v, info %+v", class, res, res.info)
		}
	}
}

func checkDatagramPieces(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	if res := r.do(sendOp(a, ba, []byte("one"), nil, []byte(" datagram"))); res.err != nil || res.n != 12 {
		r.t.Fatalf("SendTo: %d, %v", res.n, res.err)
	}
	r.wantPacket(b, []byte("one datagram"), aa)
}

func checkDatagramRefused(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	var gone []backend.Addr
	for range 2 {
		h, addr := r.packet(n)
		r.shut(h, backend.CloseFlat)
		gone = append(gone, addr)
	}
	op := recvOp(a, 0)
	r.submit(op)
	for _, to := range gone {
		r.send(a, to, []byte("anybody?"))
		res := r.await(op)
		if !errors.Is(res.err, syscall.ECONNREFUSED) || res.peer != to {
			r.t.Fatalf("RecvFrom after a send to nobody: %d, %v, peer %+v, want ECONNREFUSED of %+v", res.n, res.err, res.peer, to)
		}
		r.submit(op)
	}
	// Sends in between have to leave the errors to whom they are for.
	for _, to := range gone {
		r.send(a, to, []byte("anybody?"))
		r.send(a, ba, []byte("well"))
	}
	refused := map[backend.Addr]bool{}
	r.until("refusals", func() bool {
		for len(r.got[op]) > 0 {
			if res := r.take(op); errors.Is(res.err, syscall.ECONNREFUSED) {
				refused[res.peer] = true
			} else {
				r.t.Fatalf("RecvFrom: %+v", res)
			}
		}
		if !r.out[op] {
			r.submit(op)
		}
		return len(refused) == len(gone)
	})
	for _, to := range gone {
		if !refused[to] {
			r.t.Errorf("no refusal of %+v, but of %v", to, refused)
		}
	}
	r.wantPacket(b, []byte("well"), aa)
	r.wantPacket(b, []byte("well"), aa)
	r.send(b, aa, []byte("alive"))
	if res := r.await(op); string(res.data) != "alive" || res.peer != ba {
		r.t.Errorf("after the refusals: %+v", res)
	}
}

func checkDatagramUnbound(r *rig, n network) {
	b, ba := r.packet(n)
	a := r.open(n)
	r.send(a, ba, []byte("hello"))
	res := r.do(recvOp(b, 0))
	if res.err != nil || string(res.data) != "hello" || res.peer.IP.Port() == 0 {
		r.t.Fatalf("RecvFrom: %+v", res)
	}
	name, err := r.be.Name(a, false)
	if err != nil || name.IP.Port() != res.peer.IP.Port() {
		r.t.Errorf("own name %+v, %v; the peer sees %+v", name, err, res.peer)
	}
	r.send(b, res.peer, []byte("there"))
	r.wantPacket(a, []byte("there"), ba)
}

func checkDatagramConnected(r *rig, n network) {
	b, ba := r.packet(n)
	a := r.open(n, func(s *backend.Spec) {
		s.Peer = ba
		if !n.inet { // so that it can be answered
			s.Bind, s.Local = true, backend.Addr{Family: backend.Unix}
		}
	})
	aa, err := r.be.Name(a, false)
	if err != nil || n.inet && (aa.IP.Addr() != ba.IP.Addr() || aa.IP.Port() == 0) || !n.inet && aa.Path == "" {
		r.t.Fatalf("it is at %+v, %v", aa, err)
	}
	all := []backend.Packet{{Data: []byte("one"), To: ba, ToPeer: true}, {Data: []byte("two"), To: ba, ToPeer: true}}
	for len(all) > 0 {
		res := r.do(&backend.Op{Kind: backend.SendTo, Handle: a, Packets: &all})
		if res.err != nil || res.n < 1 {
			r.t.Fatalf("SendTo: %d, %v", res.n, res.err)
		}
		all = all[res.n:]
	}
	r.wantPacket(b, []byte("one"), aa)
	r.wantPacket(b, []byte("two"), aa)
	c, _ := r.packet(n)
	r.do(sendOp(c, aa, []byte("forged"))) // a UNIX socket refuses it at once
	r.send(b, aa, []byte("answer"))
	r.wantPacket(a, []byte("answer"), ba)
	r.shut(b, backend.CloseFlat)
	gone := []backend.Packet{{Data: []byte("late"), To: ba, ToPeer: true}}
	res := r.do(&backend.Op{Kind: backend.SendTo, Handle: a, Packets: &gone})
	if n.inet {
		if res.err != nil {
			r.t.Fatalf("SendTo a peer that is gone: %v", res.err)
		}
		res = r.do(recvOp(a, 0))
		if res.peer != ba {
			r.t.Errorf("the refusal is about %+v", res.peer)
		}
	}
	if !errors.Is(res.err, syscall.ECONNREFUSED) {
		r.t.Errorf("a peer that is gone: %v", res.err)
	}
}

func checkDatagramDual(r *rig) {
	b, ba := r.packet(udp4)
	a, _ := r.packet(udp6, func(s *backend.Spec) {
		s.Dual = true
		s.Local.IP = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	})
	r.send(a, ba, []byte("four"))
	res := r.do(recvOp(b, 0))
	if res.err != nil || string(res.data) != "four" || !res.peer.IP.Addr().Is4() {
		r.t.Fatalf("RecvFrom: %+v", res)
	}
	r.send(b, res.peer, []byte("back"))
	r.wantPacket(a, []byte("back"), ba)
}

func checkDatagramFamily(r *rig, n network) {
	a, _ := r.packet(n)
	to := backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(netip.IPv6Loopback(), 9)}
	if res := r.do(sendOp(a, to, []byte("x"))); res.err == nil {
		r.t.Errorf("SendTo to %v on an IPv4 socket: %d, no error", to.IP, res.n)
	}
	if res := r.do(sendOp(a, backend.Addr{Family: backend.Unix, Path: "/x"}, []byte("x"))); res.err == nil {
		r.t.Errorf("SendTo to a path on an IPv4 socket: %d, no error", res.n)
	}
}

func checkDatagramPorts(r *rig, n network) {
	var err error
	for range 50 { // somebody else's connection may have the number
		_, a := r.packet(n)
		spec := n.spec
		spec.Bind, spec.Local = true, a
		if _, err := r.be.Open(&spec); !errors.Is(err, syscall.EADDRINUSE) {
			r.t.Fatalf("a second socket on %v: %v, want EADDRINUSE", a.IP, err)
		}
		spec.Datagram, spec.Backlog = false, 1
		var h backend.Handle
		if h, err = r.be.Open(&spec); err == nil {
			r.shut(h, backend.CloseFlat)
			return
		}
	}
	r.t.Errorf("a TCP listener beside a datagram socket: %v", err)
}

func checkDatagramCancel(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	for _, f := range []backend.Flags{0, backend.Multi} {
		op := recvOp(b, f)
		r.submit(op)
		r.quiet(time.Millisecond)
		for _, res := range r.cancel(op) {
			if !errors.Is(res.err, backend.ErrCanceled) && !errors.Is(res.err, backend.ErrAgain) {
				r.t.Fatalf("a canceled RecvFrom has a result: %+v", res)
			}
		}
		r.send(a, ba, []byte("kept"))
		r.wantPacket(b, []byte("kept"), aa)
	}
}

func checkDatagramNow(r *rig, n network) {
	a, aa := r.packet(n)
	b, ba := r.packet(n)
	if res := r.do(recvOp(b, backend.Now)); !errors.Is(res.err, backend.ErrAgain) {
		r.t.Fatalf("RecvFrom with Now of nothing: %+v", res)
	}
	r.send(a, ba, []byte("now"))
	var res result
	r.until("datagram", func() bool {
		res = r.do(recvOp(b, backend.Now))
		return !errors.Is(res.err, backend.ErrAgain)
	})
	if res.err != nil || string(res.data) != "now" || res.peer != aa {
		r.t.Errorf("RecvFrom with Now: %+v", res)
	}
}

func checkDatagramOps(r *rig) {
	h, _ := r.packet(udp4)
	op := recvOp(h, 0)
	r.submit(op)
	if res := r.do(recvOp(h, 0)); !errors.Is(res.err, syscall.EBUSY) {
		r.t.Errorf("a second RecvFrom: %+v, want EBUSY", res)
	}
	r.cancel(op)
	if res := r.do(&backend.Op{Kind: backend.SendTo, Handle: h, Vec: [][]byte{{1}}}); res.err == nil {
		r.t.Error("SendTo without an address: no error")
	}
	if res := r.do(&backend.Op{Kind: backend.RecvFrom, Handle: h, Buf: []byte{}}); !errors.Is(res.err, syscall.EINVAL) {
		r.t.Errorf("RecvFrom into no memory: %+v, want EINVAL", res)
	}
	if res := r.do(recvOp(9999, 0)); !errors.Is(res.err, syscall.EBADF) {
		r.t.Errorf("RecvFrom of no handle: %+v, want EBADF", res)
	}
}
