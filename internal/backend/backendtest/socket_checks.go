package backendtest

import (
	"errors"
	"net/netip"
	"syscall"

	"github.com/weir-io/weir/internal/backend"
)

var socketChecks = []check{
	{
		name:   "MultiAccept",
		reason: "one submission serves a listener: every connection once, with its peer's address",
		run:    onEach(networks, checkMultiAccept),
	},
	{
		name:   "Names",
		reason: "both ends agree on their addresses, and port 0 tells which it became (R49)",
		run:    onEach(networks, checkNames),
	},
	{
		name:   "UnnamedPeer",
		reason: "a Unix client without a name has an empty one",
		run:    onEach([]network{unix, abstract}, checkUnnamedPeer),
	},
	{
		name:   "LocalAddress",
		reason: "the address to connect from can be chosen (R47)",
		run:    checkLocalAddress,
	},
	{
		name:   "DualStack",
		reason: "a dual listener takes IPv4 too, and its peers look like what they are",
		run:    checkDualStack,
	},
	{
		name:   "AddressInUse",
		reason: "an address in use is named by its own error",
		run:    onEach(networks, checkAddressInUse),
	},
	{
		name:   "ListenAgain",
		reason: "a listener that is closed leaves its address at once, whatever is armed on it",
		run:    onEach([]network{tcp4, tcp6, unix, abstract, udp4, udp6}, checkListenAgain),
	},
	{
		name:   "Refused",
		reason: "a refused connect is ECONNREFUSED, not a success that fails later",
		run:    onEach([]network{tcp4, tcp6, abstract}, checkRefused),
	},
	{
		name:   "ConnectNowhere",
		reason: "a path that is not there is ENOENT",
		run:    onEach([]network{unix}, checkConnectNowhere),
	},
	{
		name:   "Options",
		reason: "what is set can be read, and a listener's options hold on what it accepts",
		run:    onEach([]network{tcp4}, checkOptions),
	},
	{
		name:   "UnixOptions",
		reason: "a listener's buffer sizes hold on what it accepts, whatever the system does by itself",
		run:    onEach([]network{unix}, checkUnixOptions),
	},
	{
		name:   "QueuedBytes",
		reason: "how much is still on its way is a question of flow control",
		run:    onEach([]network{tcp4}, checkQueuedBytes),
	},
	{
		name:   "UnsentAfterReset",
		reason: "what waits for the peer to have everything would wait for a peer that is gone",
		run:    onEach([]network{tcp4}, checkUnsentAfterReset),
	},
	{
		name:   "ReadyOnSocket",
		reason: "raw sources are told of conditions as long as they hold, in whatever style the backend is told (R2, R14)",
		run:    onEach([]network{tcp4, unix}, checkReadyOnSocket),
	},
}

func checkMultiAccept(r *rig, n network) {
	l, a := r.listen(n)
	const conns = 70
	op := &backend.Op{Kind: backend.Accept, Handle: l, Flags: backend.Multi}
	r.submit(op)
	clients := map[backend.Addr]backend.Handle{}
	for range conns {
		c := r.open(n)
		if res := r.do(connectOp(c, a)); res.err != nil {
			r.t.Fatalf("connect: %v", res.err)
		}
		name, err := r.be.Name(c, false)
		if err != nil {
			r.t.Fatal(err)
		}
		clients[name] = c
	}
	servers := map[backend.Handle]bool{}
	r.until("accepts", func() bool {
		for len(r.got[op]) > 0 {
			res := r.take(op)
			if errors.Is(res.err, backend.ErrAgain) {
				continue
			}
			h := backend.Handle(res.n)
			if res.err != nil || servers[h] {
				r.t.Fatalf("accept: %d, %v", res.n, res.err)
			}
			servers[h] = true
			if _, known := clients[res.peer]; !known {
				r.t.Fatalf("accepted an unknown peer %+v", res.peer)
			}
			if n.inet {
				delete(clients, res.peer)
			}
		}
		if !r.out[op] {
			r.submit(op)
		}
		return len(servers) == conns
	})
}

func checkNames(r *rig, n network) {
	l, a := r.listen(n)
	if n.inet && a.IP.Port() == 0 {
		r.t.Error("a listener's port is 0")
	}
	c, s := r.dial(n, l, a)
	name := func(h backend.Handle, peer bool) backend.Addr {
		r.t.Helper()
		a, err := r.be.Name(h, peer)
		if err != nil {
			r.t.Fatal(err)
		}
		return a
	}
	if got := name(c, true); got != a {
		r.t.Errorf("client's peer %+v, listener %+v", got, a)
	}
	if got := name(s, false); got != a {
		r.t.Errorf("server's own %+v, listener %+v", got, a)
	}
	if own, peer := name(c, false), name(s, true); own != peer {
		r.t.Errorf("client's own %+v, server's peer %+v", own, peer)
	}
}

func checkUnnamedPeer(r *rig, n network) {
	_, s := r.pair(n)
	got, err := r.be.Name(s, true)
	if want := (backend.Addr{Family: backend.Unix}); got != want || err != nil {
		r.t.Errorf("got %+v, %v", got, err)
	}
}

func checkLocalAddress(r *rig) {
	l, a := r.listen(tcp4)
	from := backend.Addr{Family: backend.Inet, IP: netip.MustParseAddrPort("127.0.0.2:0")}
	spec := tcp4.spec
	spec.Bind, spec.Local = true, from
	c, err := r.be.Open(&spec)
	if missing(err) {
		r.t.Skipf("backend %s lacks a second loopback address: %v", r.caps.Name, err)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	if res := r.do(connectOp(c, a)); res.err != nil {
		r.t.Fatal(res.err)
	}
	res := r.do(&backend.Op{Kind: backend.Accept, Handle: l})
	if res.err != nil || res.peer.IP.Addr() != from.IP.Addr() || res.peer.IP.Port() == 0 {
		r.t.Errorf("accepted from %v, %v", res.peer.IP, res.err)
	}
}

func checkDualStack(r *rig) {
	l, a := r.listen(tcp6, func(s *backend.Spec) {
		s.Dual = true
		s.Local.IP = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	})
	to := backend.Addr{Family: backend.Inet, IP: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), a.IP.Port())}
	c := r.open(tcp4)
	if res := r.do(connectOp(c, to)); res.err != nil {
		r.t.Fatal(res.err)
	}
	res := r.do(&backend.Op{Kind: backend.Accept, Handle: l})
	if res.err != nil {
		r.t.Fatal(res.err)
	}
	name, _ := r.be.Name(c, false)
	if res.peer != name || !res.peer.IP.Addr().Is4() {
		r.t.Errorf("peer %v, want %v", res.peer.IP, name.IP)
	}
}

func checkAddressInUse(r *rig, n network) {
	_, a := r.listen(n)
	spec := n.spec
	spec.Bind, spec.Local, spec.Backlog = true, a, 1
	h, err := r.be.Open(&spec)
	if !errors.Is(err, syscall.EADDRINUSE) {
		r.t.Errorf("a second listener: handle %d, %v, want EADDRINUSE", h, err)
	}
}

func checkListenAgain(r *rig, n network) {
	h, a := r.listen(n, func(s *backend.Spec) {
		if s.Datagram {
			s.Backlog = 0
		}
	})
	for i := range 3 {
		op := &backend.Op{Kind: backend.Accept, Handle: h, Flags: backend.Multi}
		if n.spec.Datagram {
			op.Kind = backend.RecvFrom
		}
		r.submit(op)
		r.wait(0)
		if i == 1 && !r.be.Cancel(op) {
			r.wait(0)
		}
		var client backend.Handle
		if i == 2 && !n.spec.Datagram {
			// A connection accepted meanwhile is reset, and leaves nothing behind.
			client = r.open(n)
			r.do(connectOp(client, a))
		}
		r.shut(h, backend.CloseFlat)
		if op.Armed() {
			r.t.Fatalf("round %d: the handle is closed, and what it waited for is armed", i)
		}
		delete(r.out, op)
		for len(r.got[op]) > 0 { // it had been accepted before
			if res := r.take(op); res.err == nil {
				r.shut(backend.Handle(res.n), backend.CloseReset)
			}
		}
		spec := n.spec
		spec.Bind, spec.Local, spec.Backlog = true, a, 128
		if n.spec.Datagram {
			spec.Backlog = 0
		}
		var err error
		if h, err = r.be.Open(&spec); err != nil {
			r.t.Fatalf("round %d: the same address again: %v", i, err)
		}
		if i == 2 && !n.spec.Datagram {
			if res := r.do(readOp(client, 0)); res.n != 0 {
				r.t.Errorf("read %d bytes of a connection that was not accepted", res.n)
			}
		}
		r.quiet(5e6)
	}
}

func checkRefused(r *rig, n network) {
	l, a := r.listen(n)
	r.shut(l, backend.CloseFlat)
	c := r.open(n)
	if res := r.do(connectOp(c, a)); !errors.Is(res.err, syscall.ECONNREFUSED) {
		r.t.Errorf("connect to nobody: %v, want ECONNREFUSED", res.err)
	}
	r.shut(c, backend.CloseFlat)
}

func checkConnectNowhere(r *rig, n network) {
	c := r.open(n)
	a := n.local(r)
	a.Path += "-missing"
	if res := r.do(connectOp(c, a)); !errors.Is(res.err, syscall.ENOENT) {
		r.t.Errorf("connect: %v, want ENOENT", res.err)
	}
}

func checkOptions(r *rig, n network) {
	l, a := r.listen(n, func(s *backend.Spec) {
		s.Options = []backend.OptionValue{
			{Option: backend.NoDelay, Value: 1}, {Option: backend.KeepAlive, Value: 77}, {Option: backend.UserTimeout, Value: 4321},
		}
	})
	c, s := r.dial(n, l, a)
	get := func(h backend.Handle, o backend.Option) int {
		r.t.Helper()
		v, err := r.be.GetOption(h, o)
		if err != nil {
			r.t.Fatalf("GetOption(%d): %v", o, err)
		}
		return v
	}
	for _, o := range []struct {
		option backend.Option
		want   int
	}{{backend.NoDelay, 1}, {backend.KeepAlive, 77}, {backend.UserTimeout, 4321}, {backend.PendingError, 0}} {
		if v := get(s, o.option); v != o.want {
			r.t.Errorf("accepted: option %d is %d, want %d", o.option, v, o.want)
		}
	}
	for _, o := range []struct {
		option backend.Option
		value  int
	}{
		{backend.NoDelay, 1}, {backend.NoDelay, 0}, {backend.KeepAlive, 42}, {backend.KeepAlive, 1}, {backend.KeepAlive, 0}, {backend.UserTimeout, 999},
	} {
		if err := r.be.SetOption(c, o.option, o.value); err != nil {
			r.t.Errorf("SetOption(%d, %d): %v", o.option, o.value, err)
		} else if v := get(c, o.option); v != o.value {
			r.t.Errorf("option %d is %d, set to %d", o.option, v, o.value)
		}
	}
	for _, o := range []backend.Option{backend.SendBuffer, backend.ReceiveBuffer} {
		if err := r.be.SetOption(c, o, 32<<10); err != nil {
			r.t.Errorf("SetOption(%d): %v", o, err)
		} else if v := get(c, o); v < 32<<10 {
			r.t.Errorf("option %d is %d, set to %d", o, v, 32<<10)
		}
	}
	if r.be.SetOption(c, backend.PendingError, 1) == nil {
		r.t.Error("PendingError could be set")
	}
	if _, err := r.be.GetOption(c, 200); err == nil {
		r.t.Error("an unknown option could be read")
	}
}

func checkUnixOptions(r *rig, n network) {
	const size = 40 << 10
	l, a := r.listen(n, func(s *backend.Spec) {
		s.Options = []backend.OptionValue{{Option: backend.SendBuffer, Value: size}}
	})
	own, err := r.be.GetOption(l, backend.SendBuffer)
	if err != nil {
		r.t.Skipf("backend %s lacks buffer sizes: %v", r.caps.Name, err)
	}
	_, s := r.dial(n, l, a)
	if v, err := r.be.GetOption(s, backend.SendBuffer); v != own || err != nil {
		r.t.Errorf("accepted handle's send buffer is %d, the listener's %d (%v)", v, own, err)
	}
}

func checkQueuedBytes(r *rig, n network) {
	c, s := r.pair(n)
	_, total := r.fill(c)
	unsent, err := r.be.GetOption(c, backend.UnsentBytes)
	if errors.Is(err, backend.ErrUnsupported) {
		r.t.Skipf("backend %s lacks UnsentBytes", r.caps.Name)
	}
	if err != nil || unsent <= 0 || unsent > total {
		r.t.Errorf("%d bytes unsent of %d, %v", unsent, total, err)
	}
	unread, err := r.be.GetOption(s, backend.UnreadBytes)
	if err != nil || unread <= 0 || unread > total {
		r.t.Errorf("%d bytes unread of %d, %v", unread, total, err)
	}
	r.shut(c, backend.CloseReset)
}

func checkUnsentAfterReset(r *rig, n network) {
	c, s := r.pair(n)
	op, _ := r.fill(c)
	if _, err := r.be.GetOption(c, backend.UnsentBytes); errors.Is(err, backend.ErrUnsupported) {
		r.t.Skipf("backend %s lacks UnsentBytes", r.caps.Name)
	}
	r.shut(s, backend.CloseReset)
	if res := r.await(op); res.err == nil {
		r.t.Fatalf("write to a reset connection: %d", res.n)
	}
	if v, err := r.be.GetOption(c, backend.UnsentBytes); v != 0 && err == nil {
		r.t.Errorf("%d bytes unsent on a connection that was reset", v)
	}
}

func checkReadyOnSocket(r *rig, n network) {
	c, s := r.pair(n)
	op := &backend.Op{Kind: backend.Ready, Handle: s, Events: backend.Writable}
	res := r.do(op)
	if errors.Is(res.err, backend.ErrUnsupported) {
		r.t.Skipf("backend %s lacks Ready", r.caps.Name)
	}
	if res.err != nil || backend.Events(res.n) != backend.Writable {
		r.t.Fatalf("a fresh connection: %d, %v", res.n, res.err)
	}
	op.Events, op.Flags = backend.Readable, backend.Multi
	r.submit(op)
	r.quiet(5e6)
	r.write(c, []byte("ab"))
	for i := range 3 { // no one reads, so the condition holds
		res := r.await(op)
		if res.err != nil || backend.Events(res.n) != backend.Readable {
			r.t.Fatalf("time %d: %d, %v", i, res.n, res.err)
		}
		delete(r.got, op)
		if !r.out[op] {
			r.submit(op)
		}
	}
	r.wantRead(s, "ab")
	r.cancel(op)
	r.submit(op)
	r.quiet(5e6)
	r.shut(c, backend.CloseFlat)
	if res := r.await(op); res.err != nil || backend.Events(res.n)&backend.Readable == 0 {
		r.t.Errorf("at the end of the stream: %d, %v", res.n, res.err)
	}
	r.cancel(op)
}
