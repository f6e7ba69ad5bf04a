package proxy

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// Command is something that a proxy's client may ask for.
type Command uint8

// The commands.
const (
	CommandConnect   Command = iota // connect to the destination
	CommandBind                     // wait for one connection from the destination
	CommandAssociate                // relay datagrams; the destination is where the client sends from, or 0.0.0.0:0
)

func (c Command) String() string {
	switch c {
	case CommandBind:
		return "bind"
	case CommandAssociate:
		return "associate"
	case CommandConnect:
	}
	return "connect"
}

// Request is what a client asked a proxy server layer for. The protocol above
// finds it with RequestOf, in its Factory or in its ConnectionMade, and answers:
//
//	ConnectionMade ─▶ Hold ─▶ (dial) ─▶ Accept: "granted", and bytes pass
//	       │                     └────▶ Refuse: the reply says why, and the end
//	       └─▶ no Hold: accepted when ConnectionMade returns
//
// A protocol that knows nothing about requests is itself the destination,
// whichever was asked for. Writing before the answer accepts the request, and
// closing before it refuses it. All methods belong to the loop's goroutine.
type Request struct {
	protocol string
	command  Command
	dest     string
	user     string
	t        *servedTransport
	answer   answerer
	held     bool
	state    requestState
}

type requestState uint8

const (
	asked requestState = iota
	accepted
	refused
)

// answerer makes the replies of one proxy protocol.
type answerer interface {
	accept(c Command, bound net.Addr) []byte
	bound(listening net.Addr) []byte
	refuse(err error) []byte
}

// RequestOf returns the request that a connection began with, through any
// layers on top, or nil if there was none.
func RequestOf(t weir.Transport) *Request {
	if s, ok := weir.As[interface{ proxyRequest() *Request }](t); ok {
		return s.proxyRequest()
	}
	return nil
}

// Protocol returns the proxy's protocol: "socks4", "socks5" or "connect".
func (r *Request) Protocol() string { return r.protocol }

// Command returns what was asked for.
func (r *Request) Command() Command { return r.command }

// Destination returns the "host:port" that was asked for. The host is an
// address or a name that has not been resolved yet. A client can choose it
// freely, within the characters of names.
func (r *Request) Destination() string { return r.dest }

// User returns who asked: the name that was authenticated, or the one that a
// SOCKS4 client claims; "" if there is none.
func (r *Request) User() string { return r.user }

// Hold says that Accept or Refuse will be called later. It has to be called
// before ConnectionMade returns.
func (r *Request) Hold() { r.held = true }

// Accept tells the client that it has its connection. addr is the local end of
// the connection to the destination, or, for CommandBind, the remote end of
// what was accepted; nil if there is none. Once the request is answered it has
// no effect.
func (r *Request) Accept(addr net.Addr) {
	if r.state != asked {
		return
	}
	r.state = accepted
	r.send(r.answer.accept(r.command, addr))
}

// Connected accepts the request once t, the connection to the destination or,
// for CommandBind, the one that was waited for, has been made: it is Accept
// with the address that the client has to be told.
func (r *Request) Connected(t weir.Transport) {
	if r.command == CommandBind {
		r.Accept(t.RemoteAddr())
		return
	}
	r.Accept(t.LocalAddr())
}

// Bound tells a client that asked for CommandBind where we listen for its peer.
// Accept follows.
func (r *Request) Bound(addr net.Addr) {
	if r.state == asked && r.command == CommandBind {
		r.send(r.answer.bound(addr))
	}
}

// Refuse tells the client why it gets no connection, as far as the protocol can
// express err, and closes. The protocol above gets ConnectionLost as after
// Close. If the request has already been accepted, Refuse is Abort.
func (r *Request) Refuse(err error) {
	switch r.state {
	case asked:
		r.state = refused
		r.send(r.answer.refuse(err))
		closeSoon(r.t.Transport)
	case accepted:
		r.t.Transport.Abort()
	case refused:
	}
}

func (r *Request) send(reply []byte) {
	_, _ = r.t.Transport.Write(reply) // if it is lost, ConnectionLost says why
}

// settle accepts the request for a protocol that did not answer it.
func (r *Request) settle() {
	if !r.held {
		r.Accept(nil)
	}
}

// servedTransport is the transport above a proxy server layer.
type servedTransport struct {
	overlay
	r Request
}

var _ weir.Transport = (*servedTransport)(nil)

func (s *servedTransport) proxyRequest() *Request { return &s.r }

// Write implements weir.Transport: it accepts the request.
func (s *servedTransport) Write(p []byte) (int, error) {
	if len(p) > 0 {
		s.r.Accept(nil)
	}
	return s.Transport.Write(p)
}

// Writev implements weir.Transport: it accepts the request.
func (s *servedTransport) Writev(bufs [][]byte) (int, error) {
	s.r.Accept(nil)
	return s.Transport.Writev(bufs)
}

// WriteEOF implements weir.Transport: it accepts the request.
func (s *servedTransport) WriteEOF() error {
	s.r.Accept(nil)
	return s.Transport.WriteEOF()
}

// Close implements weir.Transport: while the request is held, it refuses the
// request.
func (s *servedTransport) Close() error {
	if s.r.state == asked {
		if s.r.held {
			s.r.Refuse(errGivenUp)
			return nil
		}
		s.r.Accept(nil)
	}
	return s.Transport.Close()
}

// Abort implements weir.Transport: the reply of a refusal still leaves.
func (s *servedTransport) Abort() {
	if s.r.state != refused {
		s.Transport.Abort()
	}
}

// RegisterProducer implements weir.Transport: it accepts the request.
func (s *servedTransport) RegisterProducer(p weir.Producer) error {
	s.r.Accept(nil)
	return s.Transport.RegisterProducer(p)
}

var errGivenUp = errors.New("canceled before it was answered")

// ServerOption is an option of the proxy server layers.
type ServerOption func(*serverConfig)

type serverConfig struct {
	users     *Users
	bind      bool
	associate bool
	limit     time.Duration
	perMinute int
	guesses   *guesses // nil: no bound, or no passwords
}

// The defaults of the proxy layers.
const (
	defaultRequestTimeout = 10 * time.Second // for the client to say what it wants
	defaultTimeout        = 60 * time.Second // for the proxy to do it
)

func serverConfigOf(opts []ServerOption) *serverConfig {
	c := &serverConfig{limit: defaultRequestTimeout, perMinute: defaultGuesses}
	for _, o := range opts {
		o(c)
	}
	if c.users != nil {
		c.guesses = newGuesses(c.perMinute)
	}
	return c
}

// WithUsers makes a proxy serve only these users: SOCKS5 asks for user and
// password (RFC 1929), CONNECT for basic authentication (RFC 7617), and SOCKS4,
// which has no passwords, is refused.
func WithUsers(u *Users) ServerOption { return func(c *serverConfig) { c.users = u } }

// WithBind makes a proxy serve BIND too, which is refused otherwise.
func WithBind() ServerOption { return func(c *serverConfig) { c.bind = true } }

// WithAssociate makes a proxy serve SOCKS5's UDP ASSOCIATE too, which is refused
// otherwise. The protocol above accepts with the address that it takes the
// client's datagrams on, as a Dialer does.
func WithAssociate() ServerOption { return func(c *serverConfig) { c.associate = true } }

// WithRequestTimeout bounds how long a client may take to say what it wants;
// the default is 10 s, and a negative value means no bound.
func WithRequestTimeout(d time.Duration) ServerOption {
	return func(c *serverConfig) { c.limit = d }
}

// server returns the layer of a proxy server whose wire newWire makes.
func server(name string, c *serverConfig, newWire func() serverWire) layer.Layer {
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			w := newWire()
			return &opening{
				name: name, wire: w, above: a, stage: weir.StageProxy, limit: c.limit, guesses: c.guesses,
				overlay: func(t weir.Transport, _ event) weir.Transport {
					s := &servedTransport{overlay: overlay{Transport: t}, r: w.request()}
					s.r.t = s
					return s
				},
			}
		}}
	}
}

type serverWire interface {
	wire
	request() Request
}

// turn says whether a server's wire may check the password that it has.
type turn uint8

const (
	turnAsk turn = iota // it has to ask: eventGuess
	turnOpen
	turnDenied // it refuses, without checking
)

// check checks a password if it is its turn, and otherwise says what the wire's
// next has to return.
func (c *serverConfig) check(at turn, user, password string) (ok bool, e event, err error) {
	switch {
	case at == turnAsk && c.guesses != nil:
		return false, eventGuess, nil
	case at == turnDenied:
		return false, eventNone, ErrThrottled
	case !c.users.Check(user, password):
		return false, eventNone, ErrAuth
	}
	return true, eventNone, nil
}

// addrPortOf returns the IP address and port of a, if it has them.
func addrPortOf(a net.Addr) (netip.AddrPort, bool) {
	switch a := a.(type) {
	case *net.TCPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), ap.IsValid()
	case *net.UnixAddr, nil: // a path may look like an address
		return netip.AddrPort{}, false
	}
	ap, err := netip.ParseAddrPort(a.String())
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), err == nil
}
