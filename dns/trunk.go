package dns

import (
	"encoding/binary"
	"io"
	"net/netip"
	"time"

	"github.com/weir-io/weir"
)

// trunk is the connection to a server for the queries that do not go by
// datagram: many at once, replies in any order (RFC 7766, 6.2.1.1). Each
// message is preceded by its length (RFC 1035, 4.2.2).
//
//	connecting ─▶ made ─no question─▶ idle ─trunkIdle─▶ closed
//	    │          │ ▲                  │
//	    │          │ └──────query───────┘
//	    └──────────┴─lost─▶ its queries fail, or are asked once more
type trunk struct {
	c      *client
	server netip.AddrPort
	stop   func()         // ends the connect
	conn   weir.Transport // nil until it is made
	asking []*exchange    // in the order in which they came
	idle   *weir.Timer
	served bool // it has had a reply: if it is lost after that, it was closed, not refused
	over   bool // nothing goes over it any more
}

var (
	_ weir.Protocol      = (*trunk)(nil)
	_ weir.ConnectFailer = (*trunk)(nil)
)

// trunkIdle is how long an unused connection is kept: a server keeps it
// about as long (RFC 7766, 6.2.3).
const trunkIdle = 10 * time.Second

// trunk returns the connection to a server, a new one if there is none.
func (c *client) trunk(server netip.AddrPort) *trunk {
	t := c.trunks[server]
	if t == nil {
		t = &trunk{c: c, server: server}
		t.idle = c.l.NewTimer(t.close)
		c.trunks[server] = t
		t.stop = c.o.connect(c.l, server, t)
	}
	return t
}

// connectTCP connects to a server, unless WithStream says otherwise.
func connectTCP(l *weir.Loop, server netip.AddrPort, p weir.Protocol) (stop func()) {
	c := l.Connect("tcp", server.String(), p)
	return func() { c.Stop() }
}

// ask takes on a query, which leaves when it is over.
func (t *trunk) ask(ex *exchange) {
	for t.find(ex.query.id) != nil {
		ex.query.id = t.c.random.uint16()
	}
	ex.trunk = t
	t.asking = append(t.asking, ex)
	t.idle.Stop()
	if t.conn != nil {
		t.send(ex)
	}
}

func (t *trunk) find(id uint16) *exchange {
	for _, ex := range t.asking {
		if ex.query.id == id {
			return ex
		}
	}
	return nil
}

func (t *trunk) send(ex *exchange) {
	msg, err := ex.query.pack(make([]byte, 2, 300))
	if err == nil {
		binary.BigEndian.PutUint16(msg, uint16(len(msg)-2))
		_, err = t.conn.Write(msg)
	}
	if err != nil { // not from within the caller that asks
		t.c.l.Soon(func() { ex.failed(err) })
	}
}

// leave says that a query is over.
func (t *trunk) leave(ex *exchange) {
	for i := range t.asking {
		if t.asking[i] == ex {
			t.asking = append(t.asking[:i], t.asking[i+1:]...)
			break
		}
	}
	switch {
	case len(t.asking) > 0:
	case t.conn == nil || t.c.trunks[t.server] != t:
		t.close()
	default:
		t.idle.Set(trunkIdle)
	}
}

// retire accepts no more queries: one of them got no reply in time, and later
// ones should not wait behind it.
func (t *trunk) retire() {
	if t.c.trunks[t.server] == t {
		delete(t.c.trunks, t.server)
	}
}

// close ends a connection, or a connect, that is not needed any more.
func (t *trunk) close() {
	if t.over {
		return
	}
	t.over = true
	t.retire()
	t.idle.Stop()
	if t.conn == nil {
		t.stop()
		return
	}
	_ = t.conn.Close() // always nil
}

// lost ends the queries that are under way. A server closes a connection that
// it has served long enough; a query that crosses the close is asked once more
// (RFC 7766, 6.2.4).
func (t *trunk) lost(err error) {
	if t.over {
		return
	}
	t.over = true
	t.retire()
	t.idle.Stop()
	asking := t.asking
	t.asking = nil
	for _, ex := range asking {
		switch {
		case ex.over:
		case t.served && !ex.again:
			ex.again = true
			t.c.trunk(t.server).ask(ex)
		default:
			ex.failed(err)
		}
	}
}

func (t *trunk) ConnectionMade(conn weir.Transport) {
	t.conn = conn
	if t.over {
		conn.Abort()
		return
	}
	for _, ex := range t.asking {
		t.send(ex)
	}
}

func (t *trunk) DataReceived(p []byte) (int, error) {
	if t.over {
		return len(p), nil
	}
	if len(p) < 2 {
		return 0, nil
	}
	n := 2 + int(binary.BigEndian.Uint16(p))
	if len(p) < n {
		return 0, nil
	}
	if p = p[2:n]; len(p) >= headerSize {
		if ex := t.find(binary.BigEndian.Uint16(p)); ex != nil {
			t.served = true
			ex.message(p)
		}
	}
	return n, nil
}

func (t *trunk) ConnectFailed(err *weir.ConnectError) { t.lost(err) }

func (t *trunk) ConnectionLost(err error) {
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	t.lost(err)
}
