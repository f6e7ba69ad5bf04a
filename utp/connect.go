package utp

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/weir-io/weir"
)

// raceDelay is how long an address is tried before the next one joins (RFC 8305).
const raceDelay = 250 * time.Millisecond

// Dialer connects from one endpoint for each address family, so that any number of
// connections needs one descriptor for each. An endpoint is opened by the first connect
// that needs it, with that connect's Config, at a port that the system picks. It is
// closed when its last connection has ended and has repeated its last acknowledgements
// for long enough; the next one gets another port. The methods belong to the loop's
// goroutine.
type Dialer struct {
	l         *weir.Loop
	four, six *Endpoint
}

// NewDialer makes a Dialer for connections on l.
func NewDialer(l *weir.Loop) *Dialer { return &Dialer{l: l} }

// Loop is the loop of the connections.
func (d *Dialer) Loop() *weir.Loop { return d.l }

// endpoint is where connections to a family come from.
func (d *Dialer) endpoint(six bool, cfg Config) (*Endpoint, error) {
	at, network, local := &d.four, "udp4", "0.0.0.0:0"
	if six {
		at, network, local = &d.six, "udp6", "[::]:0"
	}
	if e := *at; e != nil && !e.closing && !e.lost && e.busy() < e.cfg.Connections {
		return e, nil
	}
	e, err := Open(d.l, network, local, cfg)
	if err != nil {
		return nil, err
	}
	if old := *at; old != nil {
		old.Close() // it has as many as it may: once they have ended
	}
	e.passing = true
	*at = e
	return e, nil
}

// Connecting is a connect in progress. Its methods belong to the loop's goroutine.
type Connecting struct {
	d        *Dialer
	l        *weir.Loop
	network  string
	address  string
	cfg      Config
	p        weir.Protocol
	cancel   func()
	timer    *weir.Timer
	left     []netip.AddrPort
	trying   []*Dial
	attempts []*weir.AttemptError
	over     bool
}

// Connect is Dialer.Connect with a Dialer for this connection alone.
func Connect(l *weir.Loop, network, address string, p weir.Protocol, cfg Config) *Connecting {
	return NewDialer(l).Connect(network, address, p, cfg)
}

// Connect connects p to "host:port"; network is "udp", or "udp4" or "udp6" for one
// family. The addresses of a name race: the next one joins after 250 ms, or when one has
// failed. p gets ConnectionMade, or, if it is a weir.ConnectFailer, ConnectFailed with
// everything that was tried; never from inside.
func (d *Dialer) Connect(network, address string, p weir.Protocol, cfg Config) *Connecting {
	l := d.l
	c := &Connecting{d: d, l: l, network: network, address: address, p: p}
	cfg, cfgErr := cfg.withDefaults()
	c.cfg = cfg
	host, portText, err := net.SplitHostPort(address)
	port, perr := strconv.ParseUint(portText, 10, 16)
	if err == nil && (perr != nil || port == 0) {
		err = &net.AddrError{Err: "port must be a number from 1 to 65535", Addr: address}
	}
	family := map[string]string{"udp": "ip", "udp4": "ip4", "udp6": "ip6"}[network]
	if family == "" && err == nil {
		err = net.UnknownNetworkError(network)
	}
	if err == nil {
		err = cfgErr
	}
	if err != nil {
		c.soon(func() { c.fail(weir.StageName, err) })
		return c
	}
	if a, aerr := netip.ParseAddr(host); aerr == nil {
		if family != "ip" && a.Unmap().Is4() != (family == "ip4") {
			c.soon(func() {
				c.fail(weir.StageName, &net.AddrError{Err: "address is of another family than " + network, Addr: address})
			})
			return c
		}
		c.soon(func() { c.start([]netip.Addr{a}, uint16(port)) })
		return c
	}
	r := cfg.Resolver
	if r == nil {
		r = l.Resolver()
	}
	c.cancel = r.LookupNetIP(l, family, host, func(addrs []netip.Addr, err error) {
		c.cancel = nil
		if err == nil && len(addrs) == 0 {
			err = errors.New("the name has no address")
		}
		if err != nil {
			c.fail(weir.StageName, err)
			return
		}
		c.start(addrs, uint16(port))
	})
	return c
}

func (c *Connecting) soon(f func()) {
	soon(c.l, func() {
		if !c.over {
			f()
		}
	})
}

// Stop ends the connect: nothing is called back. It reports false if it was over.
func (c *Connecting) Stop() bool {
	if c.over {
		return false
	}
	c.finish(nil)
	return true
}

// finish stops everything but one.
func (c *Connecting) finish(but *Dial) {
	c.over = true
	if c.cancel != nil {
		c.cancel()
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	for _, t := range c.trying {
		if t != but {
			t.Stop()
		}
	}
	c.trying, c.left = nil, nil
}

func (c *Connecting) fail(stage weir.Stage, err error) {
	c.finish(nil)
	c.l.TellConnectFailed(c.p, &weir.ConnectError{Network: "utp", Address: c.address, Stage: stage, Attempts: c.attempts, Err: err})
}

func (c *Connecting) start(addrs []netip.Addr, port uint16) {
	c.cancel = nil
	for _, a := range addrs {
		c.left = append(c.left, netip.AddrPortFrom(a.Unmap(), port))
	}
	c.timer = c.l.NewTimer(c.more)
	c.more()
}

// more tries the next address.
func (c *Connecting) more() {
	for !c.over && len(c.left) > 0 {
		to := c.left[0]
		c.left = c.left[1:]
		if c.try(to) {
			if len(c.left) > 0 {
				c.timer.Set(raceDelay)
			}
			return
		}
	}
	c.checkFailed()
}

func (c *Connecting) checkFailed() {
	if c.over || len(c.left) > 0 || len(c.trying) > 0 {
		return
	}
	stage := weir.StageSocket
	for _, a := range c.attempts {
		if a.Stage == weir.StageConnect {
			stage = a.Stage
		}
	}
	c.fail(stage, nil)
}

func (c *Connecting) try(to netip.AddrPort) bool {
	if c.cfg.AddrFilter != nil {
		if err := c.cfg.AddrFilter(to); err != nil {
			c.failed(to, weir.StageConnect, err)
			return false
		}
	}
	ep, err := c.d.endpoint(to.Addr().Is6(), c.cfg)
	if err != nil {
		c.failed(to, weir.StageSocket, err)
		return false
	}
	var t *Dial
	t = ep.dial(to, &c.cfg,
		func(conn *conn) {
			c.finish(t)
			if err := conn.begin(func(weir.Transport) weir.Protocol { return c.p }); err != nil {
				c.attempts = append(c.attempts, &weir.AttemptError{Addr: Addr{to}, Stage: weir.StageConnect, Err: conn.fails("dial", err)})
				c.fail(weir.StageConnect, nil)
			}
		},
		func(err error) {
			for i, o := range c.trying {
				if o == t {
					c.trying = append(c.trying[:i], c.trying[i+1:]...)
					break
				}
			}
			c.failed(to, weir.StageConnect, err)
			c.more()
		})
	c.trying = append(c.trying, t)
	return true
}

func (c *Connecting) failed(to netip.AddrPort, stage weir.Stage, err error) {
	a := &weir.AttemptError{Addr: Addr{to}, Stage: stage, Err: err}
	c.attempts = append(c.attempts, a)
	if f, ok := c.p.(weir.AttemptFailer); ok && (len(c.left) > 0 || len(c.trying) > 0) {
		var next []net.Addr
		for _, t := range c.trying {
			next = append(next, Addr{t.to})
		}
		for _, l := range c.left {
			next = append(next, Addr{l})
		}
		f.AttemptFailed(a, next)
	}
}
