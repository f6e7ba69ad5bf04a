package utp

import (
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
)

// The defaults of a Config.
const (
	defaultConnections    = 4096
	defaultPerAddress     = 256
	defaultHalfOpen       = 256
	defaultMemory         = 64 << 20
	defaultReceiveWindow  = 1 << 20
	defaultSendWindow     = 1 << 20
	defaultConnectTimeout = 30 * time.Second
	defaultTimeout        = 30 * time.Second
	defaultKeepAlive      = 30 * time.Second
	defaultHalfClose      = 5 * time.Minute
)

const (
	// synAckTries is how often an answer to a SYN is repeated while nothing follows it.
	synAckTries = 3
	// keepTries is how many keep-alives, keepPause apart, a peer may leave unanswered.
	keepTries = 5
	keepPause = 3 * time.Second
	// lingerLeast is how long a connection whose transport is lost repeats
	// acknowledgements after the peer was last heard, as TIME_WAIT does: the peer's first
	// six tries, whose timeouts double, take 63 s if the first was a second. lingerMost
	// is how long if they have doubled to their most, for four more tries. lingerers is
	// how many connections do so at once.
	lingerLeast = 90 * time.Second
	lingerMost  = 4 * rtoMax
	lingerers   = 1024
	// resetsPerSecond bounds the resets that answer packets of no connection.
	resetsPerSecond = 100
)

// Config configures an endpoint. A field that is zero has its default.
type Config struct {
	// Connections is how many connections there may be at once, including those that are
	// being set up, but not those that only repeat their last acknowledgements; 4096.
	// PerAddress is how many of them may have come from one address, or one IPv6 /64
	// network; 256, and below 0 any number. A connection beyond these bounds is refused
	// with a reset, counted (Endpoint.Counts) and reported (LimitError).
	Connections, PerAddress int
	// HalfOpen is how many answered connections there may be whose peers have not yet
	// shown that their address is genuine; 256. The oldest gives way to a new one, which
	// is counted and reported (ErrUnconfirmed). No protocol is made for any of them.
	HalfOpen int
	// EarlyAccept makes the protocol of a connection as soon as its SYN has come, for peers
	// that wait to be spoken to and do not acknowledge the answer. A SYN can be forged.
	EarlyAccept bool
	// Memory is how many bytes all connections together may keep, in both directions;
	// 64 MiB. One connection keeps no more than is free. At the bound each may still keep
	// 6,000 bytes that it received, and Write accepts no more than a packet.
	Memory int
	// ReceiveWindow is how many bytes one connection keeps while its reader does not
	// accept them, and SendWindow how many it may have in flight; 1 MiB each.
	ReceiveWindow, SendWindow int

	// ConnectTimeout is how long a connect tries one address; 30 s.
	ConnectTimeout time.Duration
	// Timeout is how long what was sent may stay unacknowledged before the connection is
	// lost with ETIMEDOUT; 30 s. There is no limit for a peer that answers with a closed
	// window.
	Timeout time.Duration
	// KeepAlive is how long the peer may be silent before it is probed; 30 s,
	// and below 0 never.
	KeepAlive time.Duration
	// HalfClose is how long the peer may send nothing once our own end of writing has
	// reached it; 5 minutes. The protocol cannot say whether a peer that has received the end
	// still intends to write, so the connection is then lost with ErrSilent.
	HalfClose time.Duration

	// Nagle holds back a small packet while another is not acknowledged.
	Nagle bool
	// MaxPacket is how many bytes a datagram may have, from 150 to 65507; 0 stands for what
	// Ethernet carries, 1472 over IPv4 and 1452 over IPv6. Below it, the path's own limit
	// is found by probing.
	MaxPacket int

	// Other is called with datagrams of other protocols; if nil, they are dropped. p is
	// lent until it returns. Endpoint.SendTo sends the answers.
	Other func(p []byte, from weir.PacketAddr)
	// Random is the source of ids and numbers; nil is crypto/rand. A simulated
	// test needs one of its own to be repeatable.
	Random io.Reader
	// Options are those of each connection's transport: WithWriteMarks, WithTailLimit,
	// WithTenant. A tenant that has no room for a connection (Tenant.SetLimits) refuses it
	// when the handshake is over: the peer gets a reset, and a connect fails.
	Options []weir.StreamOption
	// Resolver turns the names of Connect into addresses; nil is the loop's.
	Resolver weir.Resolver
	// AddrFilter may refuse addresses to connect to, with its error; nil refuses none.
	AddrFilter func(netip.AddrPort) error
}

// ConfigError reports a field of a Config that is out of range.
type ConfigError struct {
	Field string
	Want  string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("utp: Config.%s must be %s", e.Field, e.Want)
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		name  string
		value *int
		other int
	}{
		{"Connections", &c.Connections, defaultConnections},
		{"HalfOpen", &c.HalfOpen, defaultHalfOpen},
		{"Memory", &c.Memory, defaultMemory},
		{"ReceiveWindow", &c.ReceiveWindow, defaultReceiveWindow},
		{"SendWindow", &c.SendWindow, defaultSendWindow},
	} {
		switch {
		case *f.value < 0:
			return c, &ConfigError{f.name, "0 or more"}
		case *f.value == 0:
			*f.value = f.other
		}
	}
	for _, f := range []struct {
		name  string
		value *time.Duration
		other time.Duration
	}{
		{"ConnectTimeout", &c.ConnectTimeout, defaultConnectTimeout},
		{"Timeout", &c.Timeout, defaultTimeout},
		{"HalfClose", &c.HalfClose, defaultHalfClose},
	} {
		switch {
		case *f.value < 0:
			return c, &ConfigError{f.name, "0 or more"}
		case *f.value == 0:
			*f.value = f.other
		}
	}
	if c.PerAddress == 0 {
		c.PerAddress = defaultPerAddress
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.MaxPacket != 0 && (c.MaxPacket < 150 || c.MaxPacket > 65507) {
		return c, &ConfigError{"MaxPacket", "from 150 to 65507 bytes"}
	}
	return c, nil
}
