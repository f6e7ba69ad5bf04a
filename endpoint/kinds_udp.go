package endpoint

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/files"
)

// PacketSpec is what an endpoint that carries datagrams says: where, as
// Loop.ListenPacket or a resolver takes it.
type PacketSpec struct {
	Network   string        // "udp", "udp4" or "udp6"
	Addresses []string      // "host:port": all of them to listen on, or the one to send to
	Idle      time.Duration // how long a peer is remembered when nothing passes; 0: it does not say
	// Open makes an endpoint that has no socket, for a protocol; nil: it is listened on
	// Addresses.
	Open func(env *Env, p weir.PacketProtocol) (*weir.PacketEndpoint, error)
	// Options are those of the endpoint: the one that is listened on, or each one that
	// sends.
	Options []weir.PacketOption
	// ReceiveBuffer is how many bytes of datagrams the system is asked to keep until they are
	// received, which Options say too; 0: as many as it likes.
	ReceiveBuffer int
}

// receiveBuffer asks for what the option receive-buffer says.
func (s *PacketSpec) receiveBuffer(p *Part) {
	if n := int(p.Size("receive-buffer")); n > 0 {
		s.ReceiveBuffer = n
		s.Options = append(s.Options, weir.WithSocketBuffers(0, n))
	}
}

func receiveBufferDoc() OptionDoc {
	return OptionDoc{Name: "receive-buffer", Type: SizeUpTo(1 << 30), Doc: "how many bytes of datagrams the system keeps for weir when they come faster than they are taken (SO_RCVBUF)"}
}

// FlowsMost is how many peers a relay of datagrams to e may have at once here: each takes
// a descriptor of the limit of open files, and through a proxy another one for its
// connection to that. 0: there is no limit.
func (e *Endpoint) FlowsMost() int { return e.flowsMost(files.Limit()) }

func (e *Endpoint) flowsMost(limit uint64) int {
	if e.ThroughProxy() {
		return roomFor(limit, 1)
	}
	return 2 * roomFor(limit, 1) // a connection's room is for its two sides
}

// packetIdle is how long a peer is remembered unless idle= says otherwise.
const packetIdle = time.Minute

func idleDoc() OptionDoc {
	return OptionDoc{Name: "idle", Type: Duration, Doc: "forget a peer after this long without a datagram; the default is 1m"}
}

func udpKind() *Kind {
	return &Kind{
		Name:    "udp",
		Role:    Dial,
		Summary: "send datagrams to a UDP port",
		Doc: "Datagrams have no end and keep their boundaries, so the other side is udp-listen. Each\n" +
			"peer's datagrams leave from a port of their own, and answers go back to that peer. A\n" +
			"name is looked up again when its records expire and when sending fails. Its addresses\n" +
			"are tried one after another: the next when the network refuses one, and when one stays\n" +
			"silent for 1 s (5 s if it has answered before). With several targets, --pick chooses one\n" +
			"for each peer, and --check sends an empty datagram and leaves out targets that the\n" +
			"network refuses. What is sent to a multicast or broadcast address may be answered by\n" +
			"anyone.",
		Arg: Arg{Name: "host:port", Type: HostPort},
		Options: []OptionDoc{
			idleDoc(), familyDoc(),
			{Name: "interface", Type: Text, Doc: "send from this network interface, and accept answers only there (Linux)"},
			receiveBufferDoc(),
		},
		Example: "udp:9.9.9.9:53,idle=30s",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			return "sends to UDP " + hostPort(p.ArgText()) + byInterface(p, " by ") + ", each peer from a port of its own"
		},
		Packets: func(p *Part) PacketSpec {
			s := PacketSpec{Network: "udp" + p.Value("family"), Addresses: []string{hostPort(p.ArgText())}, Idle: p.Duration("idle")}
			if p.Has("interface") {
				s.Options = append(s.Options, weir.WithDevice(p.Value("interface")))
			}
			s.receiveBuffer(p)
			return s
		},
	}
}

func udpListenKind() *Kind {
	return &Kind{
		Name:    "udp-listen",
		Role:    Listen,
		Summary: "receive datagrams on a UDP port",
		Doc: "A port alone listens on loopback only, :port on every interface. The other side is udp.\n" +
			"If the host is a multicast group, weir joins it and receives what is sent to it. There\n" +
			"may be as many peers as the limit of open files (ulimit -n) has room for. Beyond that,\n" +
			"weir forgets the peer that has been idle for longest, of the address that has the most\n" +
			"peers, and says so every 10 s.",
		Arg: Arg{Name: "[host:]port", Type: ListenPort},
		Options: []OptionDoc{
			familyDoc(),
			{Name: "interface", Type: Text, Doc: "the network interface to join a multicast group on"},
			receiveBufferDoc(),
		},
		Example: "udp-listen:5353",
		Check: func(p *Part) *Fault {
			if p.Has("interface") && !listenGroup(p).IsValid() {
				return &Fault{Token: &p.Option("interface").Key, Problem: "interface= needs a multicast group as the host", Hint: "udp-listen:239.1.2.3:5000,interface=eth0"}
			}
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			host, port, _ := splitHostPort(p.ArgText())
			switch {
			case listenGroup(p).IsValid():
				return "receives datagrams sent to the multicast group " + hostPort(p.ArgText()) + byInterface(p, ", on ")
			case loopback(p.ArgText()):
				return fmt.Sprintf("receives datagrams on UDP port %s, loopback only", port)
			case host == "":
				return fmt.Sprintf("receives datagrams on UDP port %s of every interface", port)
			}
			return "receives datagrams on UDP " + hostPort(p.ArgText())
		},
		Packets: func(p *Part) PacketSpec {
			s := PacketSpec{Network: "udp" + p.Value("family")}
			s.receiveBuffer(p)
			if !loopback(p.ArgText()) {
				s.Addresses = []string{hostPort(p.ArgText())}
				if g := listenGroup(p); g.IsValid() {
					s.Options = append(s.Options, weir.WithGroups(p.Value("interface"), g))
				}
				return s
			}
			_, port, _ := splitHostPort(p.ArgText())
			for _, ip := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
				if !p.Has("family") || p.Value("family") == family(ip) {
					s.Addresses = append(s.Addresses, net.JoinHostPort(ip.String(), port))
				}
			}
			return s
		},
	}
}

// byInterface is what to say of the option interface; "" where it is not given.
func byInterface(p *Part, word string) string {
	if !p.Has("interface") {
		return ""
	}
	return word + p.Value("interface")
}

// listenGroup is the multicast group that is listened on; not valid if there is none.
func listenGroup(p *Part) netip.Addr {
	host, _, _ := splitHostPort(p.ArgText())
	if a, err := netip.ParseAddr(unbracket(host)); err == nil && a.IsMulticast() {
		return a
	}
	return netip.Addr{}
}
