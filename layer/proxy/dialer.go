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
// Names are resolved by the loop's resolver, and the addresses of one race each
// other, as for any weir.Loop.Connect; the rules are asked about each address before
// it is tried, so that no name leads around them. A client that goes while its
// connect is under way ends it.
//
// The zero Dialer is safe for strangers: see Access. One Dialer serves any number of
// connections on any number of loops. It must not change while it is in use; its
// functions are called on the goroutine of the connection's loop.
type Dialer struct {
	// Access are the rules for the destinations; nil: those of the zero Access. Where
	// its Own is nil the loop's own listeners are meant, which are refused.
	Access *Access
	// Timeout bounds a connect in all: the name, and every address; and a wait for the
	// peer of a client that asked for BIND. 0 is 30 s for the one, 60 s for the other;
	// below 0 there is no bound.
	Timeout time.Duration
	// Network is "tcp", or with the addresses of one family only, "tcp4" or "tcp6"; "":
	// "tcp".
	Network string
	// Resolver turns the names of destinations into addresses; nil: the loop's does.
	Resolver weir.Resolver
	// Options are for the connects, such as weir.WithLocalAddr. An address filter among
	// them is replaced by Access.
	Options []weir.Option
	// Bind is the address that BIND is served on, one that the clients' peers can
	// reach: a port of it is opened for each request. Its zero value refuses BIND with
	// ErrCommand. The server layer has to let BIND through: see WithBind.
	Bind netip.Addr
	// Associated hears of a client whose datagrams are relayed from now on, and Dissociated
	// of one that has ended its connection, which ends that too. The server layer has to
	// let UDP ASSOCIATE through: see WithAssociate. They may be nil.
	Associated  func(r *Request, at net.Addr)
	Dissociated func(r *Request, count AssociationCount)
	// Waits hears of a port that was opened for BIND. It may be nil.
	Waits func(r *Request, at net.Addr)
	// Turned hears of a peer that came to such a port and was turned away: the rules
	// forbid it, or another host is waited for. It may be nil.
	Turned func(r *Request, peer net.Addr, err error)
	// Failed hears of a request that came to nothing, after its client was told why.
	// err is a *weir.ConnectError, or ErrCommand. It may be nil.
	Failed func(r *Request, err error)
	// Done hears how a connection went once both of its sides are over, but not of
	// those that Failed heard of. It may be nil.
	Done func(r *Request, res relay.Result)
}

// defaultDialTimeout is Dialer.Timeout's: systems send for two minutes and more,
// and a client that gave up meanwhile without a reset is not noticed before.
const defaultDialTimeout = 30 * time.Second

// Serve makes the factory of a proxy, for Listen. The layers stand in their order
// from the wire up; the last of them is the proxy's, SOCKSServer or ConnectServer:
//
//	l.Listen("tcp", "127.0.0.1:1080", proxy.Serve(&proxy.Dialer{}, proxy.SOCKSServer(proxy.AnyVersion)))
func Serve(d *Dialer, layers ...layer.Layer) weir.Factory {
	return layer.Server(d.Join, layers...)
}

// errNoRequest is reported where Join stands above no proxy server.
var errNoRequest = errors.New("proxy: Dialer.Join: the transport has no Request: SOCKSServer or ConnectServer must be the layer below")

// Join is the weir.Factory for above a proxy's server layer: its protocol connects to
// where the client asked to go, or serves BIND or UDP ASSOCIATE, and passes everything on. If t has no
// Request the connection is refused, which is reported to the loop.
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
	// The connect begins once the client's side is made, in the relay's order.
	j.loop.Soon(j.connect)
	return j.relay.Protocol(relay.A)
}

// Connect connects p to a "host:port" within the rules, which hold for its addresses
// once the name is resolved.
func (d *Dialer) Connect(l *weir.Loop, dest string, p weir.Protocol) *weir.Connector {
	opts := append([]weir.Option{}, d.Options...)
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

// limit is Timeout, where it is not set that of the default; 0: no bound.
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
	stop    func() // ends the connect; nil: it has not begun
	refused bool   // Failed has heard of it
	over    bool   // Done, or would have been, where Done is nil
}

func (j *joint) connect() {
	if j.over {
		return // the client has gone already
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

// connected answers when both sides are there.
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

// left: a client that has ended its stream, and has sent nothing, is given a while.
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
