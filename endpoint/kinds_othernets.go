package endpoint

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// These kinds are sockets of Linux that few kernels have: see weir.MissingSocketError.

func streamsDoc() OptionDoc {
	return OptionDoc{Name: "streams", Type: Number(1, 65535), Doc: "how many streams to ask for, for a peer that insists on them; bytes use the first"}
}

func sctpKind() *Kind {
	return &Kind{
		Name:    "sctp",
		Role:    Dial,
		Summary: "connect to an SCTP port",
		Doc: "A one-to-one association (RFC 9260), used as a stream of bytes. It goes on as long as\n" +
			"one address of each end can be reached. It has no half-close: after the input has\n" +
			"ended, it stays open for the reply until the peer closes it or nothing has arrived\n" +
			"for eof-wait=. Linux, with its module sctp.",
		Arg: Arg{Name: "host:port", Type: HostPort},
		Options: []OptionDoc{
			retryDoc(), timeoutDoc(),
			{Name: "name-timeout", Type: Duration, Doc: "give up a name whose addresses take longer to find"},
			{Name: "connect-timeout", Type: Duration, Doc: "give up an address that takes longer to answer, and try the next; 30s without it and timeout"},
			familyDoc(),
			{Name: "bind", Type: IP, Many: true, Doc: "a local address to use, and further ones: multi-homing"},
			{Name: "also", Type: IP, Many: true, Doc: "a further address of the peer, with the same port, for when the first does not answer"},
			eofWaitDoc("the default is 5s"),
			streamsDoc(), nagleDoc(), deviceDoc(), dscpDoc(), markDoc(),
		},
		Example: "sctp:mme.example:3868,bind=192.0.2.7,bind=198.51.100.7",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			d := "connects to SCTP " + hostPort(p.ArgText())
			if p.Has("also") {
				d += ", or " + strings.Join(p.Values("also"), " or ")
			}
			if p.Has("bind") {
				d += ", from " + strings.Join(p.Values("bind"), " and ")
			}
			if p.Has("retry") {
				d += ", trying for " + p.Value("retry")
			}
			return d
		},
		Connect: func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
			opts := []weir.ConnectOption{weir.JoinOptions(sctpOptions(p, "bind")...), weir.WithAddrFilter(env.notItselfSCTP), weir.WithSCTPPeers(addrsOf(p, "also")...)}
			return dial(env, p, "sctp", hostPort(p.ArgText()), opts, awaiter(p, proto))
		},
	}
}

// awaiter is proto with the wait for a reply that p asks for.
func awaiter(p *Part, proto weir.Protocol) weir.Protocol {
	wait := eofWait
	if p.Has("eof-wait") {
		wait = p.Duration("eof-wait")
	}
	return layer.Client(proto, awaitsReply(p.Name.Text, wait, nil))
}

// sctpOptions are the options of both ends; addrs names the one that has addresses.
func sctpOptions(p *Part, addrs string) []weir.TCPOption {
	opts := tcpOptions(p) // those that SCTP has no option for are not set
	if p.Has("streams") {
		opts = append(opts, weir.WithSCTPStreams(int(p.Int("streams")), 0))
	}
	return append(opts, weir.WithSCTPAddrs(addrsOf(p, addrs)...))
}

// addrsOf are the addresses of an option.
func addrsOf(p *Part, option string) (all []netip.Addr) {
	for _, text := range p.Values(option) {
		a, _ := netip.ParseAddr(text) // Parse has checked it
		all = append(all, a)
	}
	return all
}

// notItselfSCTP refuses the addresses of SCTP that are Own.
func (env *Env) notItselfSCTP(a netip.AddrPort) error {
	if env.Own == nil {
		return nil
	}
	for _, own := range env.Own() {
		at, ok := own.(weir.SCTPAddr)
		if !ok || at.Port() != a.Port() {
			continue
		}
		if at.Addr() == a.Addr() || at.Addr().IsUnspecified() && a.Addr().IsLoopback() || a.Addr().IsUnspecified() {
			return &SelfError{Listener: own}
		}
	}
	return nil
}

func sctpListenKind() *Kind {
	return &Kind{
		Name:    "sctp-listen",
		Role:    Listen,
		Summary: "accept connections on an SCTP port",
		Doc: "A port alone is loopback only, :port every interface, in both address families. It has\n" +
			"no half-close: when the other side has ended, everything written is sent\n" +
			"and the connection is closed. eof-wait= gives the client time to go on. Linux, with its\n" +
			"module sctp." + boundsDoc,
		Arg: Arg{Name: "[host:]port", Type: ListenPort},
		Options: append([]OptionDoc{
			familyDoc(),
			{Name: "also", Type: IP, Many: true, Doc: "a further address of this machine to listen on: multi-homing"},
			{Name: "backlog", Type: Number(1, 65535), Doc: "how many connections may wait to be accepted"},
			eofWaitDoc("without it they are closed at once"),
			streamsDoc(), nagleDoc(), deviceDoc(), dscpDoc(), markDoc(),
		}, boundDocs()...),
		Example: "sctp-listen:192.0.2.7:3868,also=198.51.100.7",
		Check: func(p *Part) *Fault {
			host, _, ok := splitHostPort(p.ArgText())
			if also := p.Option("also"); also != nil && (!ok || host == "" || loopback(p.ArgText())) {
				return &Fault{Token: &also.Key, Problem: "also= needs a first address to listen on", Hint: "write sctp-listen:ADDRESS:PORT,also=ADDRESS"}
			}
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			d := strings.Replace(describeTCPListen(p), "TCP", "SCTP", 1)
			if p.Has("also") {
				d += ", and " + strings.Join(p.Values("also"), " and ")
			}
			return d + describeBounds(p)
		},
		Listen: func(env *Env, p *Part, f weir.Factory) ([]Listener, error) {
			opts := []weir.ListenOption{weir.JoinOptions(sctpOptions(p, "also")...), admission(env, p, placeWait)}
			if p.Has("backlog") {
				opts = append(opts, weir.WithBacklog(int(p.Int("backlog"))))
			}
			if p.Has("eof-wait") {
				f = layer.Server(f, awaitsReply("sctp", p.Duration("eof-wait"), nil))
			}
			return listenInet(env, p, "sctp", f, opts)
		},
	}
}

// otherType is the type of an address of vsock or RFCOMM. alone says that what stands
// after its last colon may stand alone.
func otherType(name, doc string, alone bool, parse func(string) error) *Type {
	return &Type{Name: name, Doc: doc, check: func(s string) *Fault {
		if !strings.Contains(s, ":") {
			if !alone {
				return &Fault{Problem: "bad address " + strconv.Quote(s), Hint: "write " + name}
			}
			s = ":" + s
		} else if !alone && s[0] == ':' {
			return &Fault{Problem: "bad address " + strconv.Quote(s), Hint: "write " + name}
		}
		if err := parse(s); err != nil {
			f := &Fault{Problem: "bad address " + strconv.Quote(s), Hint: err.Error()}
			if e := (*net.AddrError)(nil); errors.As(err, &e) {
				f.Hint = e.Err
			}
			return f
		}
		return nil
	}}
}

func parsesVsock(s string) error {
	_, err := weir.ParseVsockAddr(s)
	return err
}

func parsesRFCOMM(s string) error {
	_, err := weir.ParseRFCOMMAddr(s)
	return err
}

// connectOther connects to an address of vsock or RFCOMM.
func connectOther(network string) func(*Env, *Part, string, weir.Protocol) func() {
	return func(env *Env, p *Part, _ string, proto weir.Protocol) func() {
		opts := []weir.ConnectOption{weir.WithDescriptorWait(descriptorWait)}
		if network == "rfcomm" {
			proto = awaiter(p, proto)
		}
		if p.Has("timeout") {
			opts = append(opts, weir.WithTimeout(p.Duration("timeout")))
		} else {
			opts = append(opts, weir.WithConnectTimeout(connectMost))
		}
		if own := env.ownVsock(network, p.ArgText()); own != nil {
			return soon(env, network, p.ArgText(), proto, func() error { return &SelfError{Listener: own} })
		}
		c := env.Loop.Connect(network, p.ArgText(), proto, opts...)
		return func() { c.Stop() }
	}
}

// ownVsock returns the address in Own that a connection to a vsock address would reach, or
// nil if there is none.
func (env *Env) ownVsock(network, address string) net.Addr {
	a, err := weir.ParseVsockAddr(address)
	if env.Own == nil || network != "vsock" || err != nil || a.CID != weir.VsockLocal {
		return nil
	}
	for _, own := range env.Own() {
		if at, ok := own.(weir.VsockAddr); ok && at.Port == a.Port && (at.CID == weir.VsockLocal || at.CID == weir.VsockAny) {
			return own
		}
	}
	return nil
}

// listenOther listens on an address of vsock or RFCOMM; one without a colon is alone, a
// port of this machine's own or a channel.
func listenOther(network, host string) func(*Env, *Part, weir.Factory) ([]Listener, error) {
	return func(env *Env, p *Part, f weir.Factory) ([]Listener, error) {
		address := p.ArgText()
		if !strings.Contains(address, ":") {
			address = host + ":" + address
		}
		opts := []weir.ListenOption{admission(env, p, 0)} // see placeWait
		if p.Has("backlog") {
			opts = append(opts, weir.WithBacklog(int(p.Int("backlog"))))
		}
		ln, err := env.Loop.Listen(network, address, f, opts...)
		if err != nil {
			return nil, err
		}
		return []Listener{ln}, nil
	}
}

func otherListenOptions() []OptionDoc {
	return []OptionDoc{
		{Name: "backlog", Type: Number(1, 65535), Doc: "how many connections may wait to be accepted"},
		boundDocs()[0],
	}
}

func describeRetry(p *Part) string {
	if p.Has("retry") {
		return ", trying for " + p.Value("retry")
	}
	return ""
}

func vsockKind() *Kind {
	return &Kind{
		Name:    "vsock",
		Role:    Dial,
		Summary: "connect to a port of a virtual machine, or of its host",
		Doc: "The CID says which machine: a guest's number, host (2) or local (1), this machine\n" +
			"itself. Linux, with the module vhost_vsock on a host, vmw_vsock_virtio_transport in\n" +
			"a guest and vsock_loopback for local.",
		Arg:      Arg{Name: "CID:port", Type: otherType("CID:port", "a guest's number, host or local, and a port up to "+strconv.FormatUint(math.MaxUint32, 10), false, parsesVsock)},
		Options:  []OptionDoc{retryDoc(), timeoutDoc()},
		Example:  "vsock:host:5000,retry=10s",
		Describe: func(p *Part) string { return "connects to vsock " + p.ArgText() + describeRetry(p) },
		Connect:  connectOther("vsock"),
	}
}

func vsockListenKind() *Kind {
	return &Kind{
		Name:    "vsock-listen",
		Role:    Listen,
		Summary: "accept connections from virtual machines, or from the host",
		Doc: "A port alone is for this machine itself, :port for all that can reach it. Linux; see\n" +
			"vsock for the modules.",
		Arg:     Arg{Name: "[CID:]port", Type: otherType("[CID:]port", "5000 is for this machine only, :5000 for all, 0 any free port", true, parsesVsock)},
		Options: otherListenOptions(),
		Example: "vsock-listen::5000",
		Describe: func(p *Part) string {
			switch host, port, ok := splitHostPort(p.ArgText()); {
			case !ok:
				return "listens on vsock port " + port + ", this machine only" + describeBounds(p)
			case host == "":
				return "listens on vsock port " + port + " of every CID" + describeBounds(p)
			}
			return "listens on vsock " + p.ArgText() + describeBounds(p)
		},
		Listen: listenOther("vsock", "local"),
	}
}

func rfcommKind() *Kind {
	return &Kind{
		Name:    "rfcomm",
		Role:    Dial,
		Summary: "connect to a channel of a Bluetooth device",
		Doc: "The devices must know each other already (bluetoothctl pair). It has no half-close:\n" +
			"eof-wait is as for sctp.\n" +
			"Linux, with its module rfcomm. It was written from the kernel's source, and has not been\n" +
			"tried with a device.",
		Arg:      Arg{Name: "device:channel", Type: otherType("device:channel", "a Bluetooth address and a channel from 1 to 30: 01:23:45:67:89:AB:3", false, parsesRFCOMM)},
		Options:  []OptionDoc{retryDoc(), timeoutDoc(), eofWaitDoc("the default is 5s")},
		Example:  "rfcomm:01:23:45:67:89:AB:3",
		Describe: func(p *Part) string { return "connects to Bluetooth RFCOMM " + p.ArgText() + describeRetry(p) },
		Connect:  connectOther("rfcomm"),
	}
}

func rfcommListenKind() *Kind {
	return &Kind{
		Name:    "rfcomm-listen",
		Role:    Listen,
		Summary: "accept connections from Bluetooth devices on a channel",
		Doc: "A channel alone is that of every adapter of this machine. Clients that look a channel\n" +
			"up need an entry in the service database (sdptool add SP), which weir does not make.\n" +
			"Linux; see rfcomm.",
		Arg:      Arg{Name: "[adapter:]channel", Type: otherType("[adapter:]channel", "a channel from 1 to 30, or 0 for any free one; before it perhaps an adapter's address", true, parsesRFCOMM)},
		Options:  otherListenOptions(),
		Example:  "rfcomm-listen:3",
		Describe: func(p *Part) string { return "listens on Bluetooth RFCOMM channel " + p.ArgText() + describeBounds(p) },
		Listen:   listenOther("rfcomm", ""),
	}
}
