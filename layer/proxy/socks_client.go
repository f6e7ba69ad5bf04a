package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// ClientOption is an option of the proxy client layers.
type ClientOption func(*clientConfig)

type clientConfig struct {
	user, password string
	auth           bool
	limit          time.Duration
	bind           bool
	bound          func(net.Addr)
	associate      bool
	emptyPassword  bool
	header         [][2]string
}

func clientConfigOf(opts []ClientOption) *clientConfig {
	c := &clientConfig{limit: defaultTimeout}
	for _, o := range opts {
		o(c)
	}
	return c
}

// WithCredentials gives the proxy a user name and a password. They are sent
// unencrypted: put TLS below if others can read along. SOCKS4 has no passwords.
func WithCredentials(name, password string) ClientOption {
	return func(c *clientConfig) { c.user, c.password, c.auth = name, password, true }
}

// WithEmptyPassword lets the password of WithCredentials be empty, for a SOCKS5
// proxy whose users have none. RFC 1929 does not allow an empty password, but
// some proxies do; without this option it is taken for one that was forgotten.
func WithEmptyPassword() ClientOption {
	return func(c *clientConfig) { c.emptyPassword = true }
}

// WithHeader sends an HTTP proxy further fields, each a name and a value, in
// addition to those of the request. SOCKS has no such fields.
func WithHeader(fields ...[2]string) ClientOption {
	return func(c *clientConfig) { c.header = append(c.header, fields...) }
}

// WithTimeout bounds how long the proxy may take to connect; the default is 60
// s, and a negative value means no bound.
func WithTimeout(d time.Duration) ClientOption {
	return func(c *clientConfig) { c.limit = d }
}

// WithBindRequest asks a SOCKS proxy for BIND: the proxy waits for one
// connection from the destination, and the transport then is that connection.
// bound is called on the loop's goroutine with the address at which the proxy
// waits.
func WithBindRequest(bound func(addr net.Addr)) ClientOption {
	return func(c *clientConfig) { c.bind, c.bound = true, bound }
}

// SOCKS5 returns a client of a SOCKS5 proxy (RFC 1928) that connects to dest, a
// "host:port". The proxy resolves a name; we never do. The RemoteAddr of the
// transport above is dest: a *net.TCPAddr, or a *HostAddr for a name. If the
// proxy refuses, the result is an *AttemptError of StageProxy whose cause is an
// *Error. The layer steps aside once the proxy has connected.
func SOCKS5(dest string, opts ...ClientOption) layer.Layer {
	c := clientConfigOf(opts)
	return clientOf("socks5", c, dest, func(host string, port uint16) clientWire {
		return &client5{c: c, host: host, port: port}
	})
}

// SOCKS4 returns a client of a SOCKS4 proxy, which takes only IPv4 addresses;
// for names there is SOCKS4a. See SOCKS5.
func SOCKS4(dest string, opts ...ClientOption) layer.Layer {
	c := clientConfigOf(opts)
	return clientOf("socks4", c, dest, func(host string, port uint16) clientWire {
		return &client4{c: c, host: host, port: port}
	})
}

// SOCKS4a returns a client of a SOCKS4 proxy that resolves names. See SOCKS5.
func SOCKS4a(dest string, opts ...ClientOption) layer.Layer {
	c := clientConfigOf(opts)
	return clientOf("socks4a", c, dest, func(host string, port uint16) clientWire {
		return &client4{c: c, host: host, port: port, names: true}
	})
}

// clientWire is the wire of a proxy client.
type clientWire interface {
	wire
	// answered returns the address in the last reply, nil if there was none.
	answered() net.Addr
}

func clientOf(name string, c *clientConfig, dest string, newWire func(host string, port uint16) clientWire) layer.Layer {
	return func(a layer.Above) layer.Above {
		return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
			host, port, err := splitDestination(dest)
			var w clientWire = &noWire{err: err}
			if err == nil {
				w = &askingWire{clientWire: newWire(host, port), c: c, dest: joinDestination(host, port)}
			}
			o := &opening{name: name, wire: w, above: a, stage: weir.StageProxy, limit: c.limit}
			o.overlay = func(t weir.Transport, _ event) weir.Transport {
				top := &overlay{Transport: t, remote: destAddr(host, port)}
				if c.bind || c.associate {
					if a := w.answered(); a != nil {
						top.remote = a
					}
				}
				return top
			}
			o.bound = func() {
				if c.bound != nil {
					c.bound(w.answered())
				}
			}
			return o
		}}
	}
}

// askingWire adds to a refusal what was asked for, and by whom.
type askingWire struct {
	clientWire
	c    *clientConfig
	dest string
}

var _ refuser = (*askingWire)(nil)

func (w *askingWire) next(p []byte) (n int, reply []byte, e event, err error) {
	n, reply, e, err = w.clientWire.next(p)
	return n, reply, e, w.named(err)
}

func (w *askingWire) refused() error {
	if r, ok := w.clientWire.(refuser); ok {
		return w.named(r.refused())
	}
	return nil
}

func (w *askingWire) named(err error) error {
	var refused *Error
	if errors.As(err, &refused) {
		refused.Destination = w.dest
		refused.User = w.c.user
		if refused.Protocol != "connect" {
			return err // its text is ours
		}
		for _, words := range []*string{&refused.Text, &refused.Location, &refused.Body} {
			*words = w.c.withoutPassword(*words)
		}
	}
	return err
}

// withoutPassword returns a proxy's words without the password, and without what HTTP
// sends it as. The words may have been cut in the middle of either.
func (c *clientConfig) withoutPassword(words string) string {
	const least = 4 // to hide less would tell it
	if len(c.password) < least || words == "" {
		return words
	}
	sent := base64.StdEncoding.EncodeToString([]byte(c.user + ":" + c.password))
	words = strings.NewReplacer(sent, "***", c.password, "***").Replace(words)
	for _, secret := range [...]string{sent, c.password} {
		// What is left of a character that was cut has become a question mark.
		for _, end := range [...]string{words, strings.TrimSuffix(words, "?")} {
			for n := min(len(secret)-1, len(end)); n >= least; n-- {
				if strings.HasSuffix(end, secret[:n]) {
					return end[:len(end)-n] + "***"
				}
			}
		}
	}
	return words
}

// noWire is the wire of a handshake that cannot begin.
type noWire struct{ err error }

func (w *noWire) start() ([]byte, error)                  { return nil, w.err }
func (w *noWire) next([]byte) (int, []byte, event, error) { return 0, nil, eventNone, w.err }
func (w *noWire) answered() net.Addr                      { return nil }

// client5 is the client's side of SOCKS5.
//
//	methods ──▶ chosen ──▶ (password ──▶ checked) ──▶ request ──▶ granted ──▶ (BIND: peer) ──▶ open
type client5 struct {
	c      *clientConfig
	host   string
	port   uint16
	state  uint8
	answer net.Addr
}

// The states of clients: what they wait for.
const (
	waitMethod uint8 = iota
	waitChecked
	waitReply
	waitPeer
)

func (w *client5) answered() net.Addr { return w.answer }

func (w *client5) start() ([]byte, error) {
	if !w.c.auth {
		return []byte{socks5, 1, methodNone}, nil
	}
	if len(w.c.user) == 0 || len(w.c.user) > 255 || len(w.c.password) > 255 || w.c.password == "" && !w.c.emptyPassword { // RFC 1929, 2
		return nil, malformed("a user name and a password have 1 to 255 bytes")
	}
	return []byte{socks5, 2, methodNone, methodPassword}, nil
}

func (w *client5) next(p []byte) (n int, reply []byte, e event, err error) {
	if len(p) < 2 {
		return 0, nil, eventNone, nil
	}
	switch w.state {
	case waitMethod:
		if p[0] != socks5 {
			return 0, nil, eventNone, malformed("the proxy does not speak SOCKS5: it answered %q", p[:2])
		}
		switch {
		case p[1] == methodNone:
			w.state = waitReply
			return 2, w.request(), eventNone, nil
		case p[1] == methodPassword && w.c.auth:
			w.state = waitChecked
			b := append([]byte{1, byte(len(w.c.user))}, w.c.user...)
			b = append(append(b, byte(len(w.c.password))), w.c.password...)
			return 2, b, eventNone, nil
		case p[1] == methodNothing:
			return 2, nil, eventNone, &Error{Protocol: "socks5", Code: methodNothing, Text: "no acceptable way to authenticate", cause: ErrAuth}
		}
		return 2, nil, eventNone, malformed("the proxy chose authentication method %d, which was not offered", p[1])
	case waitChecked:
		if p[1] != 0 { // the version of a refusal does not matter
			return 2, nil, eventNone, &Error{Protocol: "socks5", Code: int(p[1]), Text: "user name or password is wrong", cause: ErrAuth}
		}
		if p[0] != 1 {
			return 2, nil, eventNone, malformed("unknown version %d of authentication by user name and password", p[0])
		}
		w.state = waitReply
		return 2, w.request(), eventNone, nil
	}
	if p[0] != socks5 {
		return 0, nil, eventNone, malformed("the proxy's reply has version %d", p[0])
	}
	if p[1] != reply5Granted { // an address that follows means nothing
		return 2, nil, eventNone, error5(p[1])
	}
	if len(p) < 5 {
		return 0, nil, eventNone, nil
	}
	host, port, n, err := getAddr5(p[3:])
	if err != nil || n == 0 {
		return 0, nil, eventNone, err
	}
	w.answer = destAddr(host, port)
	e = eventOpen
	if w.c.bind && w.state == waitReply {
		w.state, e = waitPeer, eventBound
	}
	return 3 + n, nil, e, nil
}

func (w *client5) request() []byte {
	command := byte(socksConnect)
	if w.c.bind {
		command = socksBind
	}
	if w.c.associate {
		command = socksAssociate
	}
	return putAddr5([]byte{socks5, command, 0}, w.host, w.port)
}

// client4 is the client's side of SOCKS4 and 4a.
type client4 struct {
	c      *clientConfig
	host   string
	port   uint16
	names  bool
	state  uint8
	answer net.Addr
}

func (w *client4) answered() net.Addr { return w.answer }

func (w *client4) start() ([]byte, error) {
	switch {
	case bytes.IndexByte([]byte(w.c.user), 0) >= 0 || len(w.c.user) > socks4Longest:
		return nil, malformed("a user name in SOCKS4 has at most %d bytes and no NUL", socks4Longest)
	case w.c.password != "":
		return nil, malformed("SOCKS4 has no passwords")
	}
	command := byte(socksConnect)
	if w.c.bind {
		command = socksBind
	}
	b := binary.BigEndian.AppendUint16([]byte{socks4, command}, w.port)
	ip, err := netip.ParseAddr(w.host)
	switch {
	case err == nil && ip.Is4():
		b = append(append(b, ip.AsSlice()...), w.c.user...)
		return append(b, 0), nil
	case err == nil:
		return nil, &net.AddrError{Err: "SOCKS4 takes no IPv6 address", Addr: w.host}
	case !w.names:
		return nil, &net.AddrError{Err: "SOCKS4 takes no names, SOCKS4a does", Addr: w.host}
	}
	b = append(append(b, 0, 0, 0, 1), w.c.user...)
	b = append(append(b, 0), w.host...)
	return append(b, 0), nil
}

func (w *client4) next(p []byte) (n int, reply []byte, e event, err error) {
	if len(p) >= 1 && p[0] != 0 {
		return 0, nil, eventNone, malformed("the proxy does not speak SOCKS4: its reply begins with %d", p[0])
	}
	if len(p) >= 2 && p[1] != reply4Granted {
		return 0, nil, eventNone, error4(p[1])
	}
	if len(p) < 8 {
		return 0, nil, eventNone, nil
	}
	w.answer = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[4:8])), binary.BigEndian.Uint16(p[2:])))
	e = eventOpen
	if w.c.bind && w.state == 0 {
		w.state, e = waitPeer, eventBound
	}
	return 8, nil, e, nil
}
