package dns

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/weir-io/weir"
)

// Server answers the questions of other hosts with what a Resolver finds: its cache, its stale
// answers, its servers, whatever way they are asked. It listens on one address, UDP
// and TCP, and belongs to its loop's goroutine.
//
//	client ── UDP, TCP ──▶ Server ──▶ Resolver: hosts file, cache, servers
//
// Names are taken as they are, without a search list. It passes on no DNSSEC, answers
// no question for ANY (RFC 8482) or a transfer, and holds no zone.
type Server struct {
	c         ServerConfig
	client    *client
	udp       *weir.PacketEndpoint
	tcp       *weir.Listener
	questions int
	closed    bool
	count     ServerCount
}

// ServerConfig says how a Server answers.
type ServerConfig struct {
	// Resolver finds what is asked for.
	Resolver *Resolver
	// Allow says which clients are answered; others get no reply, so that the server cannot be
	// used to flood a third party. nil: loopback, private and link-local addresses.
	Allow func(client netip.Addr) bool
	// Lost, if set, is called if the UDP endpoint is gone without Close.
	Lost func(err error)
}

// ServerCount counts what a Server did.
type ServerCount struct {
	Questions   int64 // that were looked up
	Failed      int64 // of those, the ones that no server answered
	Connections int64 // that asked over TCP
	Refused     int64 // questions over UDP, and connections, of clients that Allow does not have
	Busy        int64 // that were more than there is room for
	Bad         int64 // that could not be read, or ask for what is not served
}

// The bounds of a Server.
const (
	serverQuestions = 4096 // under way; the Resolver has bounds of its own for each client
	serverConns     = 256
	serverPipeline  = 16 // questions of one connection under way
)

// serverIdle is how long a connection is kept without a question (RFC 7766, 6.2.3).
const serverIdle = trunkIdle

// NewServer listens on a "host:port", UDP and TCP, where network is "udp", "udp4" or
// "udp6". With port 0 both have the same free one. Errors are those of ListenPacket
// and Listen.
func NewServer(l *weir.Loop, network, address string, c ServerConfig) (*Server, error) {
	s := &Server{c: c, client: c.Resolver.client(l)}
	if s.c.Allow == nil {
		s.c.Allow = isNear
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	tries := 1
	if port == "0" {
		tries = 20 // the port that UDP gets may be taken for TCP
	}
	for range tries {
		p := &serverPackets{s: s}
		if p.e, err = l.ListenPacket(network, address, p); err != nil {
			return nil, err
		}
		s.udp = p.e
		_, got, _ := net.SplitHostPort(s.udp.LocalAddr().String())
		if s.tcp, err = l.Listen("tcp"+network[len("udp"):], net.JoinHostPort(host, got), s.connected); err == nil {
			return s, nil
		}
		s.udp = nil
		p.e.Abort()
	}
	return nil, err
}

// isNear reports whether a client is one of this machine or of a network that is not
// the Internet.
func isNear(a netip.Addr) bool { return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() }

// Addr is the address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.udp.Local().IP }

// Count is what it has done so far.
func (s *Server) Count() ServerCount { return s.count }

// Close stops listening. Questions under way over UDP get no answer; connections that
// are there go on until they are idle.
func (s *Server) Close() {
	if !s.closed {
		s.closed = true
		_ = s.udp.Close() // both are nil on their own loop
		_ = s.tcp.Close()
	}
}

// ask answers a message of at most so many bytes, 0 for what the client says. answer
// is called once, perhaps from inside; its message is nil if there is to be none. The
// question can be taken back with cancel.
func (s *Server) ask(msg []byte, from netip.Addr, most int, answer func([]byte)) (cancel func()) {
	nothing := func() {}
	if !s.c.Allow(from.Unmap().WithZone("")) {
		s.count.Refused++
		answer(nil)
		return nothing
	}
	q, code, ok := readQuestion(msg)
	if most == 0 {
		most = q.size
	}
	switch {
	case !ok:
		s.count.Bad++
		answer(nil)
		return nothing
	case code != dnsmessage.RCodeSuccess:
		s.count.Bad++
		answer(q.reply(code, Answer{}, most))
		return nothing
	}
	name, t := lower(q.question.Name.String()), Type(q.question.Type)
	s.client.reload()
	if all, known := s.client.local(name, t); known {
		answer(q.reply(dnsmessage.RCodeSuccess, Answer{Records: all}, most))
		return nothing
	}
	switch {
	case checkName(name) != nil:
		s.count.Bad++
		answer(q.reply(dnsmessage.RCodeRefused, Answer{}, most))
		return nothing
	case neverAsked(name):
		answer(q.reply(dnsmessage.RCodeNameError, Answer{}, most))
		return nothing
	case s.questions == serverQuestions:
		s.count.Busy++
		answer(q.reply(dnsmessage.RCodeServerFailure, Answer{}, most))
		return nothing
	}
	s.count.Questions++
	s.questions++
	over := false
	end := func() bool {
		if over {
			return false
		}
		over = true
		s.questions--
		return true
	}
	w := s.client.ask(askerOf(from), name, t, func(a Answer, err *Error) {
		if !end() {
			return
		}
		if serverCode(err) == dnsmessage.RCodeServerFailure {
			s.count.Failed++
		}
		if err != nil && err.none != nil {
			a.Aliases, q.zone = err.none.at(s.client.l.Now())
		}
		answer(q.reply(serverCode(err), a, most))
	})
	return func() {
		if end() {
			w.cancel()
		}
	}
}

// serverCode is how an answer says what became of a lookup.
func serverCode(err *Error) dnsmessage.RCode {
	switch {
	case err == nil, errors.Is(err.Err, ErrNotFound) && !err.NoName:
		return dnsmessage.RCodeSuccess
	case errors.Is(err.Err, ErrNotFound):
		return dnsmessage.RCodeNameError
	}
	return dnsmessage.RCodeServerFailure
}

// serverPackets is the protocol of a Server's UDP endpoint, or of one whose port could
// not be had for TCP.
type serverPackets struct {
	s *Server
	e *weir.PacketEndpoint
}

var _ weir.PacketProtocol = (*serverPackets)(nil)

func (sp *serverPackets) EndpointMade(*weir.PacketEndpoint) {}

func (sp *serverPackets) PacketReceived(p []byte, from weir.PacketAddr) {
	s := sp.s
	if s.closed || s.udp != sp.e {
		return
	}
	asked := sp.e.AnswerInfo()
	s.ask(p, from.IP.Addr(), 0, func(reply []byte) {
		if reply != nil && !s.closed {
			_ = s.udp.SendInfo(reply, from, &asked) // the client asks again
		}
	})
}

func (sp *serverPackets) EndpointLost(err error) {
	if s := sp.s; !s.closed && s.udp == sp.e && s.c.Lost != nil {
		s.c.Lost(err)
	}
}

// connected is the factory of the TCP listener.
func (s *Server) connected(t weir.Transport) weir.Protocol {
	if at, ok := t.RemoteAddr().(*net.TCPAddr); ok && !s.c.Allow(at.AddrPort().Addr().Unmap().WithZone("")) {
		s.count.Refused++ // or strangers would hold all places
		return nil
	}
	if s.tcp.Conns() > serverConns {
		return nil
	}
	s.count.Connections++
	return &serverConn{s: s}
}

// serverConn is a client's connection: questions one after the other, answers as they
// are found (RFC 7766), each with its length in front.
type serverConn struct {
	s      *Server
	t      weir.Transport
	from   netip.Addr
	idle   *weir.Timer
	open   map[int]func() // how to take back what is under way
	n      int
	ended  bool // the client has sent all
	full   bool // the client does not read
	paused bool
}

var (
	_ weir.Protocol    = (*serverConn)(nil)
	_ weir.WritePauser = (*serverConn)(nil)
	_ weir.EOFReceiver = (*serverConn)(nil)
)

func (c *serverConn) ConnectionMade(t weir.Transport) {
	c.t, c.open = t, map[int]func(){}
	if a, ok := t.RemoteAddr().(*net.TCPAddr); ok {
		c.from = a.AddrPort().Addr()
	}
	c.idle = t.Loop().After(serverIdle, t.Abort)
}

func (c *serverConn) DataReceived(p []byte) (int, error) {
	used := 0
	for !c.paused && len(p)-used >= 2 {
		n := 2 + int(binary.BigEndian.Uint16(p[used:]))
		if len(p)-used < n {
			break
		}
		c.question(p[used+2 : used+n])
		used += n
	}
	return used, nil
}

func (c *serverConn) question(msg []byte) {
	c.idle.Set(serverIdle)
	id, done := c.n, false
	c.n++
	cancel := c.s.ask(msg, c.from, 1<<16-1, func(reply []byte) {
		done = true
		delete(c.open, id)
		if reply == nil {
			c.t.Abort() // not one who asks
			return
		}
		_, _ = c.t.Write(binary.BigEndian.AppendUint16(nil, uint16(len(reply)))) // if they are lost, ConnectionLost says why
		_, _ = c.t.Write(reply)
		c.settle()
	})
	if !done {
		c.open[id] = cancel
	}
	c.settle()
}

// settle reads as long as there is room for questions, and closes once the client has
// all that it asked for.
func (c *serverConn) settle() {
	paused := c.full || len(c.open) >= serverPipeline
	switch {
	case paused && !c.paused:
		c.t.PauseReading()
	case !paused && c.paused:
		c.t.ResumeReading()
	}
	c.paused = paused
	if c.ended && len(c.open) == 0 {
		_ = c.t.Close() // always nil
	}
}

func (c *serverConn) PauseWriting() { c.full = true; c.settle() }

func (c *serverConn) ResumeWriting() { c.full = false; c.settle() }

func (c *serverConn) EOFReceived(int) (bool, error) {
	c.ended = true
	return len(c.open) > 0, nil
}

func (c *serverConn) ConnectionLost(error) {
	c.idle.Stop()
	for _, id := range slices.Sorted(maps.Keys(c.open)) { // in their order
		c.open[id]()
	}
	c.open = map[int]func(){}
}
