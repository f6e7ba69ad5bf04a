package dns

import (
	"container/list"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/weir-io/weir"
)

// exchange is one query to one server and its outcome: a call of exactly one of
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
	opened bool          // it is one of client.open
	slot   int           // where in it
	at     *list.Element // its place in its asker's queue; nil if not queued
	since  time.Time     // when it was opened
	turn   time.Duration // after which another may take its socket
	sent   bool          // there was something to reply to
	cased  bool          // a reply had the name in a different case
	over   bool

	udp   *weir.PacketEndpoint
	trunk *trunk // over TCP
	again bool   // it has lost a trunk already
	timer *weir.Timer
}

func (ex *exchange) open() {
	if ex.c.l.Now().After(ex.q.until) { // it has been in the queue for all of its time
		ex.c.l.Soon(func() { ex.failed(ErrTimeout) })
		return
	}
	ex.opened, ex.slot, ex.since = true, len(ex.c.open), ex.c.l.Now()
	ex.c.open = append(ex.c.open, ex)
	ex.q.asker.open++
	ex.turn = max(ex.turn, turnTime)
	if ex.timer == nil {
		ex.timer = ex.c.l.NewTimer(ex.late)
	}
	if ex.c.config.TCP {
		ex.overTCP("asked", ex.q.patience)
		return
	}
	ex.timer.Set(ex.q.patience)
	if err := ex.overUDP(); err != nil {
		if errors.Is(err, weir.ErrLoopClosed) {
			ex.end()
			ex.q.fail(&Error{Name: ex.q.key.name, Type: ex.q.key.qtype, Err: err})
			return
		}
		// Not from within the caller that asks.
		ex.c.l.Soon(func() { ex.failed(err) })
	}
}

// portTries is how many ports are drawn before the choice is left to the
// system.
const portTries = 16

// overUDP sends the query from a port that is drawn for it, on a socket that is
// used for nothing else.
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
	if err = ex.udp.SendTo(msg, weir.PacketAddr{IP: ex.server}); err == nil {
		ex.sent = true
	}
	return err
}

// end releases everything without notifying anyone.
func (ex *exchange) end() {
	if ex.over {
		return
	}
	ex.over = true
	ex.closeUDP()
	if ex.trunk != nil {
		ex.trunk.leave(ex)
	}
	ex.c.unline(ex)
	if ex.opened {
		ex.shut()
		ex.c.openNext()
	}
}

// shut records that the exchange has no socket any more.
func (ex *exchange) shut() {
	ex.timer.Stop()
	c, last := ex.c, len(ex.c.open)-1
	c.open[ex.slot] = c.open[last]
	c.open[ex.slot].slot = ex.slot
	c.open[last] = nil
	c.open = c.open[:last]
	ex.opened = false
	ex.q.asker.open--
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

// message handles what came from the server.
func (ex *exchange) message(p []byte) {
	r, err := ex.query.read(p)
	if !errors.Is(err, errNotReply) {
		ex.c.hears(ex.server)
	}
	switch {
	case errors.Is(err, errOtherCase) && !ex.tcp:
		// As below, but some servers change the case of all names and have no
		// TCP.
		ex.cased = true
		ex.overTCP("the name is in another case", min(ex.q.patience, casedTime))
	case errors.Is(err, errNotReply) && !ex.tcp:
		// Either a forger is guessing, or a server changes what it echoes: only
		// TCP can tell which.
		ex.overTCP("not a reply to this query", ex.q.patience)
	case err != nil:
		ex.failed(err)
	case r.truncated && !ex.tcp:
		ex.overTCP("truncated", ex.q.patience)
	case r.truncated:
		ex.failed(errBadReply)
	default:
		ex.end()
		ex.q.replied(ex, r)
	}
}

// datagrams is the exchange in its role as the protocol of its endpoint.
type datagrams exchange

var (
	_ weir.PacketProtocol    = (*datagrams)(nil)
	_ weir.TruncatedReceiver = (*datagrams)(nil)
	_ weir.PacketFailer      = (*datagrams)(nil)
)

func (d *datagrams) EndpointMade(*weir.PacketEndpoint) {}

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

func (d *datagrams) PacketTruncated(_ []byte, from weir.PacketAddr) {
	if ex := (*exchange)(d); !ex.over && !ex.tcp && from.IP == ex.server {
		ex.overTCP("too long for a datagram", ex.q.patience)
	}
}

func (d *datagrams) PacketFailed(err error, to weir.PacketAddr) {
	if ex := (*exchange)(d); !ex.tcp && to.IP == ex.server {
		ex.failed(err)
	}
}

func (d *datagrams) EndpointLost(err error) {
	if ex := (*exchange)(d); !ex.tcp && err != nil && !errors.Is(err, weir.ErrAborted) {
		ex.failed(err)
	}
}

// casedTime is how long a server that changes the case of names has to answer
// over TCP before it is asked again by datagram, this time with the case
// ignored.
const casedTime = time.Second

// overTCP asks the same server again over a connection, where no one else can
// answer in its place.
func (ex *exchange) overTCP(why string, patience time.Duration) {
	ex.q.step(ex, why+": over "+ex.c.over())
	ex.tcp, ex.sent = true, true
	ex.query.fold = true
	ex.closeUDP()
	ex.timer.Set(patience)
	ex.c.trunk(ex.server).ask(ex)
}

// over names the carrier of the queries that do not go by datagram.
func (c *client) over() string {
	if c.o.stream {
		return "a stream"
	}
	return "TCP"
}
