package proxy

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/relay"
)

// Dialer connects the clients of a proxy server to where they ask to go, within the
// rules, and joins the two:
//
//	client ──▶ server layer ──▶ Request ──▶ name, rules, connect ──▶ granted, and a relay
//	                                          │
//	                                          └──▶ refused: the reply says why
//
// Names are resolved by the loop's resolver, and the addresses of a name race
// each other, as for any weir.Loop.Connect. Each address is checked against the
// rules before it is tried, so that no name gets around them. A client that
// leaves while its connect is under way ends it.
//
// The zero Dialer is safe for strangers: see Access. One Dialer serves any number of
// connections on any number of loops. It must not change while it is in use; its
// functions are called on the goroutine of the connection's loop.
type Dialer struct {
	// Access holds the rules for the destinations; nil: those of the zero
	// Access. If its Own is nil, the loop's own listeners are refused.
	Access *Access
	// Timeout bounds a whole connect, the name and every address, and the wait
	// for the peer of a client that asked for BIND. 0 means 30 s for a connect
	// and 60 s for a wait; a negative value means no bound.
	Timeout time.Duration
	// Network is "tcp", or "tcp4" or "tcp6" to use the addresses of one family
	// only; "" means "tcp".
	Network string
	// Resolver turns the names of destinations into addresses; nil: the loop's
	// resolver does.
	Resolver weir.Resolver
	// Options are used for the connects, for example weir.WithLocalAddr. Access
	// replaces any address filter among them.
	Options []weir.ConnectOption
	// Bind is the address that BIND is served on, one that the clients' peers
	// can reach: a port on it is opened for each request. With the zero value
	// BIND is refused with ErrCommand. The server layer has to let BIND
	// through: see WithBind.
	Bind netip.Addr
	// Associated is told of each client whose datagrams are relayed from now on,
	// and Dissociated of each that has ended its connection, which ends that too.
	// The server layer has to let UDP ASSOCIATE through: see WithAssociate. They
	// may be nil.
	Associated  func(r *Request, at net.Addr)
	Dissociated func(r *Request, count AssociationCount)
	// Waits is told of each port that is opened for BIND. It may be nil.
	Waits func(r *Request, at net.Addr)
	// Turned is told of each peer that connected to such a port and was turned
	// away, because the rules forbid it or because another host is expected. It
	// may be nil.
	Turned func(r *Request, peer net.Addr, err error)
	// Failed is told of each request that failed, after its client was told
	// why. err is a *weir.ConnectError, or ErrCommand. Failed may be nil.
	Failed func(r *Request, err error)
	// Done is told how a connection went once both of its sides are over,
	// except for those that Failed was told of. It may be nil.
	Done func(r *Request, res relay.Result)
}

// defaultDialTimeout is the default of Dialer.Timeout: systems keep trying for
// two minutes and more, and a client that gave up meanwhile without a reset is
// not noticed until then.
const defaultDialTimeout = 30 * time.Second

// Serve makes the factory of a proxy, for Listen. The layers are given from the
// wire up; the last is the proxy's own, SOCKSServer or ConnectServer:
//
//	l.Listen("tcp", "127.0.0.1:1080", proxy.Serve(&proxy.Dialer{}, proxy.SOCKSServer(proxy.AnyVersion)))
func Serve(d *Dialer, layers ...layer.Layer) weir.Factory {
	return layer.Server(d.Join, layers...)
}

// errNoRequest is reported if Join is not above a proxy server's layer.
var errNoRequest = errors.New("proxy: Dialer.Join: the transport has no Request: SOCKSServer or ConnectServer must be the layer below")

// Join is the weir.Factory to use above a proxy's server layer: its protocol
// connects to where the client asked to go, or serves BIND or UDP ASSOCIATE, and
// passes everything on. If t has no Request, the connection is refused, which is
// reported to the loop.
func (d *Dialer) Join(t weir.Transport) weir.Protocol {
	request := RequestOf(t)
	if request == nil {
		t.Loop().Report(errNoRequest)
		return nil
	}
	if request.Command() == CommandAssociate {
		return d.Associate(t, request)
	}
	j := &joint{d: d, loop: t.Loop(), request: request}
	j.relay = relay.New(relay.Config{
		Connected: j.connected, Failed: j.failed, Abandon: j.abandon, Left: j.left, Done: j.done,
	})
	request.Hold()
	// The connect begins once the client's side is made, as the relay requires.
	j.loop.Soon(j.connect)
	return j.relay.Protocol(relay.A)
}

// Connect connects p to a "host:port" within the rules, which apply to its
// addresses once the name is resolved.
func (d *Dialer) Connect(l *weir.Loop, dest string, p weir.Protocol) *weir.Connector {
	opts := append([]weir.ConnectOption{}, d.Options...)
	if limit := d.limit(defaultDialTimeout); limit > 0 {
		opts = append(opts, weir.WithTimeout(limit))
	}
	if d.Resolver != nil {
		opts = append(opts, weir.WithConnectResolver(d.Resolver))
	}
	network := d.Network
	if network == "" {
		network = "tcp"
	}
	return l.Connect(network, dest, p, append(opts, d.Access.Filter(l))...)
}

// limit returns Timeout, or the default if it is not set; 0: no bound.
func (d *Dialer) limit(byDefault time.Duration) time.Duration {
	if d.Timeout == 0 {
		return byDefault
	}
	return max(d.Timeout, 0)
}

// joint is one client and its destination.
type joint struct {
	d       *Dialer
	loop    *weir.Loop
	request *Request
	relay   *relay.Relay
	stop    func() // ends the connect; nil: it has not started
	refused bool   // Failed has been told
	over    bool   // Done was called, or would have been if it is nil
}

func (j *joint) connect() {
	if j.over {
		return // the client has left already
	}
	b := j.relay.Protocol(relay.B)
	switch bind := j.request.Command() == CommandBind; {
	case bind && !j.d.Bind.IsValid():
		j.refuse(ErrCommand)
		j.relay.Abort()
	case bind:
		j.stop = j.d.Await(j.loop, j.request, b)
	default:
		c := j.d.Connect(j.loop, j.request.Destination(), b)
		j.stop = func() { c.Stop() }
	}
}

// connected answers the client when both sides are connected.
func (j *joint) connected() { j.request.Connected(j.relay.Transport(relay.B)) }

func (j *joint) failed(_ relay.Side, err *weir.ConnectError) (again bool) {
	j.refuse(err)
	return false
}

func (j *joint) refuse(err error) {
	j.refused = true
	j.request.Refuse(err)
	if j.d.Failed != nil {
		j.d.Failed(j.request, err)
	}
}

// left gives a client that has ended its stream without sending anything a
// while longer.
func (j *joint) left(relay.Side) time.Duration { return relay.LeftFor }

func (j *joint) abandon(relay.Side) {
	if j.stop != nil {
		j.stop()
	}
}

func (j *joint) done(res relay.Result) {
	j.over = true
	if !j.refused && j.d.Done != nil {
		j.d.Done(j.request, res)
	}
}
