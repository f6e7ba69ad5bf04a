package address

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
)

// PacketSpec is what an endpoint that carries datagrams says: where, as
// Loop.ListenPacket or a resolver takes it.
type PacketSpec struct {
	Network   string        // "udp", "udp4" or "udp6"
	Addresses []string      // "host:port": all of them to listen on, or the one to send to
	Idle      time.Duration // how long a peer is remembered when nothing passes
	// Open makes an endpoint that has no socket, for a protocol; nil: it is listened on
	// Addresses.
	Open func(env *Env, p weir.PacketProtocol) (*weir.PacketEndpoint, error)
}

// packetIdle is how long a peer is remembered unless idle= says otherwise.
const packetIdle = time.Minute

func idleDoc() OptionDoc {
	return OptionDoc{Name: "idle", Type: Duration, Doc: "forget a peer when nothing has passed for so long; 1m without it"}
}

func idle(p *Part) time.Duration {
	if p.Has("idle") {
		return p.Duration("idle")
	}
	return packetIdle
}

func udpKind() *Kind {
	return &Kind{
		Name:    "udp",
		Role:    Dial,
		Summary: "send datagrams to a UDP port",
		Doc: "Datagrams have no end and keep their edges, so the other side is udp-listen. Each\n" +
			"peer's are sent from a port of its own, and the answers go back to it.",
		Arg:     Arg{Name: "host:port", Type: HostPort},
		Options: []OptionDoc{idleDoc(), familyDoc()},
		Example: "udp:9.9.9.9:53,idle=30s",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			return fmt.Sprintf("sends to UDP %s, each peer from a port of its own, forgotten after %v of silence", hostPort(p.ArgText()), idle(p))
		},
		Packets: func(p *Part) PacketSpec {
			return PacketSpec{Network: "udp" + p.Value("family"), Addresses: []string{hostPort(p.ArgText())}, Idle: idle(p)}
		},
	}
}

func udpListenKind() *Kind {
	return &Kind{
		Name:    "udp-listen",
		Role:    Listen,
		Summary: "take datagrams on a UDP port",
		Doc:     "A port alone is loopback only, :port every interface. The other side is udp.",
		Arg:     Arg{Name: "[host:]port", Type: ListenPort},
		Options: []OptionDoc{familyDoc()},
		Example: "udp-listen:5353",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			host, port, _ := splitHostPort(p.ArgText())
			switch {
			case loopback(p.ArgText()):
				return fmt.Sprintf("takes datagrams on UDP port %s, loopback only", port)
			case host == "":
				return fmt.Sprintf("takes datagrams on UDP port %s of every interface", port)
			}
			return "takes datagrams on UDP " + hostPort(p.ArgText())
		},
		Packets: func(p *Part) PacketSpec {
			s := PacketSpec{Network: "udp" + p.Value("family"), Idle: packetIdle}
			if !loopback(p.ArgText()) {
				s.Addresses = []string{hostPort(p.ArgText())}
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
