package dns

import (
	"errors"
	"net/netip"
	"strconv"

	"github.com/weir-io/weir"
)

// exchange is one query to one server and what comes of it: exactly one of
// question.replied and question.failed, unless it is ended before.
//
//	begin ─▶ (wait for a socket) ─▶ udp ─reply──────────────▶ replied
//	                                 │ ├─refused, time──────▶ failed
//	                                 │ └─cut, not the reply─▶ tcp ─▶ either
type exchange struct {
	q      *question
	c      *client
	server netip.AddrPort
	query  query
	tcp    bool
	opened bool // counts among client.open
	over   bool

	udp   *weir.PacketEndpoint
	trunk *trunk // over TCP
	again bool   // a trunk was lost below it already
	timer *weir.Timer
}

func (ex *exchange) begin() {
	if ex.c.open >= ex.c.o.sockets {
		ex.c.waiting = append(ex.c.waiting, ex)
		return
	}
	ex.open()
}

func (ex *exchange) open() {
	ex.opened = true
	ex.c.open++
	ex.timer = ex.c.l.NewTimer(ex.late)
	if ex.c.config.TCP {
		ex.overTCP("asked")
		return
	}
	ex.timer.Set(ex.c.config.Timeout)
	if err := ex.overUDP(); err != nil {
		if errors.Is(err, weir.ErrLoopClosed) {
			ex.end()
			ex.q.fail(&Error{Name: ex.q.key.name, Type: ex.q.key.qtype, Err: err})
			return
		}
		// Not from inside whoever asks.
		ex.c.l.Soon(func() { ex.failed(err) })
	}
}

// portTries is how many ports are drawn before the system chooses one.
const portTries = 16

// overUDP sends the query from a port that is drawn for it, on a socket that
// takes nothing else.
func (ex *exchange) overUDP() error {
	msg, err := ex.query.pack(make([]byte, 0, 300))
	if err != nil {
		return err
	}
	network, any := "udp4", "0.0.0.0:"
	if !ex.server.Addr().Unmap().Is4() {
		network, any = "udp6", "[::]:"
	}
	for try := range portTries + 1 {
		port := ex.c.random.port()
		if try == portTries {
			port = 0
		}
		ex.udp, err = ex.c.l.ListenPacket(network, any+strconv.Itoa(int(port)), (*datagrams)(ex), ex.c.packets)
		if err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	ex.q.step(ex, "ask")
	return ex.udp.SendTo(msg, weir.PacketAddr{IP: ex.server})
}

// end gives everything back without a word.
func (ex *exchange) end() {
	if ex.over {
		return
	}
	ex.over = true
	ex.closeUDP()
	if ex.trunk != nil {
		ex.trunk.leave(ex)
	}
	if ex.timer != nil {
		ex.timer.Stop()
	}
	if ex.opened {
		ex.c.open--
		ex.c.openNext()
	}
}

// openNext lets the exchange begin that has waited longest.
func (c *client) openNext() {
	for len(c.waiting) > 0 && c.open < c.o.sockets {
		ex := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if !ex.over {
			ex.open()
		}
	}
}

func (ex *exchange) closeUDP() {
	if ex.udp != nil {
		ex.udp.Abort()
		ex.udp = nil
	}
}

func (ex *exchange) late() {
	if ex.trunk != nil {
		ex.trunk.retire()
	}
	ex.failed(ErrTimeout)
}

func (ex *exchange) failed(err error) {
	if !ex.over {
		ex.end()
		ex.q.failed(ex, err)
	}
}

// message looks at what came from the server.
func (ex *exchange) message(p []byte) {
	r, err := ex.query.read(p)
	switch {
	case errors.Is(err, errNotReply) && !ex.tcp:
		// A forger who guesses, or a server that changes what it repeats: only
		// TCP tells.
		ex.overTCP("not a reply to this query")
	case err != nil:
		ex.failed(err)
	case r.truncated && !ex.tcp:
		ex.overTCP("truncated")
	case r.truncated:
		ex.failed(errBadReply)
	default:
		ex.end()
		ex.q.replied(ex, r)
	}
}

// datagrams is the exchange as the protocol of its endpoint.
type datagrams exchange

// EndpointMade implements weir.PacketProtocol.
func (d *datagrams) EndpointMade(*weir.PacketEndpoint) {}

// PacketReceived implements weir.PacketProtocol.
func (d *datagrams) PacketReceived(p []byte, from weir.PacketAddr) {
	ex := (*exchange)(d)
	if ex.over || ex.tcp {
		return
	}
	if from.IP != ex.server {
		ex.q.step(ex, "a datagram from "+from.String()+" is ignored")
		return
	}
	ex.message(p)
}

// PacketTruncated implements weir.TruncatedReceiver.
func (d *datagrams) PacketTruncated(_ []byte, from weir.PacketAddr) {
	if ex := (*exchange)(d); !ex.over && !ex.tcp && from.IP == ex.server {
		ex.overTCP("too long for a datagram")
	}
}

// PacketFailed implements weir.PacketFailer.
func (d *datagrams) PacketFailed(err error, to weir.PacketAddr) {
	if ex := (*exchange)(d); !ex.tcp && to.IP == ex.server {
		ex.failed(err)
	}
}

// EndpointLost implements weir.PacketProtocol.
func (d *datagrams) EndpointLost(err error) {
	if ex := (*exchange)(d); !ex.tcp && err != nil && !errors.Is(err, weir.ErrAborted) {
		ex.failed(err)
	}
}

// overTCP asks the same server again, where nobody else can answer.
func (ex *exchange) overTCP(why string) {
	ex.q.step(ex, why+": over "+ex.c.over())
	ex.tcp = true
	ex.query.fold = true
	ex.closeUDP()
	ex.timer.Set(ex.c.config.Timeout)
	ex.c.trunk(ex.server).ask(ex)
}

// over names what carries the queries that do not go by datagram.
func (c *client) over() string {
	if c.o.stream {
		return "a stream"
	}
	return "TCP"
}
