package proxy

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/weir-io/weir/layer"
)

// SOCKSVersions is the set of versions that a SOCKS server speaks, combined
// with |.
type SOCKSVersions uint8

// The versions.
const (
	Version4   SOCKSVersions = 1 << iota // with IPv4 addresses
	Version4a                            // and with names, and with Version4's requests
	Version5                             // RFC 1928
	AnyVersion = Version4 | Version4a | Version5
)

// SOCKSServer returns a SOCKS proxy for the given versions, with CONNECT and,
// given WithBind, BIND and, given WithAssociate, SOCKS5's UDP ASSOCIATE. The
// client's request reaches the protocol above as a Request. The layer itself
// does not check, resolve or dial the destination, and it makes no Request
// before the client has authenticated, if it has to. The layer steps aside once
// the request has come.
func SOCKSServer(v SOCKSVersions, opts ...ServerOption) layer.Layer {
	c := serverConfigOf(opts)
	return server("socks", c, func() serverWire { return &socksServer{c: c, versions: v} })
}

// socksServer is the server's side of SOCKS.
//
//	         ┌─▶ SOCKS4 request ───────────────────────────┐
//	version ─┤                                             ├─▶ asked
//	         └─▶ methods ──▶ (password) ──▶ SOCKS5 request ─┘
type socksServer struct {
	c        *serverConfig
	versions SOCKSVersions
	state    uint8
	version  byte
	turn     turn
	r        Request
}

func (w *socksServer) grant(at turn) { w.turn = at }

// The states of a SOCKS server: what it waits for.
const (
	waitVersion uint8 = iota
	waitPassword
	waitRequest
)

func (w *socksServer) start() ([]byte, error) { return nil, nil }

// request returns the request, once eventAsked was returned.
func (w *socksServer) request() Request {
	w.r.answer = w
	return w.r
}

func (w *socksServer) next(p []byte) (n int, reply []byte, e event, err error) {
	if len(p) == 0 {
		return 0, nil, eventNone, nil
	}
	switch w.state {
	case waitVersion:
		switch {
		case p[0] == socks5 && w.versions&Version5 != 0:
			return w.methods(p)
		case p[0] == socks4 && w.versions&(Version4|Version4a) != 0:
			return w.request4(p)
		case p[0] == socks4:
			return 1, reply4(reply4Rejected, nil), eventNone, malformed("the client speaks SOCKS4, which is not served")
		case p[0] == socks5:
			return 1, []byte{socks5, methodNothing}, eventNone, malformed("the client speaks SOCKS5, which is not served")
		}
		return 1, nil, eventNone, malformed("the client does not speak SOCKS: it begins with %q", p[:1])
	case waitPassword:
		return w.password(p)
	default:
		return w.request5(p)
	}
}

func (w *socksServer) methods(p []byte) (n int, reply []byte, e event, err error) {
	if len(p) < 2 || len(p) < 2+int(p[1]) {
		return 0, nil, eventNone, nil
	}
	n = 2 + int(p[1])
	method, next := byte(methodNone), waitRequest
	if w.c.users != nil {
		method, next = methodPassword, waitPassword
	}
	if bytes.IndexByte(p[2:n], method) < 0 {
		err := ErrAuth
		if w.c.users == nil {
			err = malformed("the client insists on authentication, but none is configured")
		}
		return n, []byte{socks5, methodNothing}, eventNone, err
	}
	w.version, w.state = socks5, next
	return n, []byte{socks5, method}, eventNone, nil
}

func (w *socksServer) password(p []byte) (n int, reply []byte, e event, err error) {
	if p[0] != 1 {
		return 1, []byte{1, 1}, eventNone, malformed("unknown version %d of authentication by user name and password", p[0])
	}
	if len(p) < 2 || len(p) < 3+int(p[1]) {
		return 0, nil, eventNone, nil
	}
	u := 2 + int(p[1])
	n = u + 1 + int(p[u])
	if len(p) < n {
		return 0, nil, eventNone, nil
	}
	user := string(p[2:u])
	switch ok, e, err := w.c.check(w.turn, user, string(p[u+1:n])); {
	case err != nil:
		return n, []byte{1, 1}, eventNone, err
	case !ok:
		return 0, nil, e, nil
	}
	w.r.user, w.state = user, waitRequest
	return n, []byte{1, 0}, eventNone, nil
}

func (w *socksServer) request5(p []byte) (n int, reply []byte, e event, err error) {
	if p[0] != socks5 {
		return 1, reply5(reply5Failed, nil), eventNone, malformed("the client's request has version %d", p[0])
	}
	if len(p) < 5 {
		return 0, nil, eventNone, nil
	}
	host, port, n, err := getAddr5(p[3:])
	if err != nil {
		return 0, reply5(reply5Address, nil), eventNone, err
	}
	if n == 0 {
		return 0, nil, eventNone, nil
	}
	if err := w.ask("socks5", p[1], host, port); err != nil {
		return 3 + n, w.refuse(err), eventNone, err
	}
	return 3 + n, nil, eventAsked, nil
}

func (w *socksServer) request4(p []byte) (n int, reply []byte, e event, err error) {
	w.version = socks4
	if w.c.users != nil {
		return 1, reply4(reply4User, nil), eventNone, ErrAuth
	}
	if len(p) < 9 {
		return 0, nil, eventNone, nil
	}
	user, n, err := cut4(p, 8)
	if err != nil || n == 0 {
		return 0, w.refuse(err), eventNone, err
	}
	ip := netip.AddrFrom4([4]byte(p[4:8]))
	host := ip.String()
	if p[4] == 0 && p[5] == 0 && p[6] == 0 && p[7] != 0 { // 4a: a name follows
		if w.versions&Version4a == 0 {
			err := malformed("the client speaks SOCKS4a, which is not served")
			return n, w.refuse(err), eventNone, err
		}
		if host, n, err = cut4(p, n); err != nil || n == 0 {
			return 0, w.refuse(err), eventNone, err
		}
	}
	w.r.user = user
	if err := w.ask("socks4", p[1], host, binary.BigEndian.Uint16(p[2:])); err != nil {
		return n, w.refuse(err), eventNone, err
	}
	return n, nil, eventAsked, nil
}

// cut4 reads a text that ends with a NUL; n is where the next text begins, 0 if
// bytes are missing.
func cut4(p []byte, at int) (text string, n int, err error) {
	i := bytes.IndexByte(p[at:min(len(p), at+socks4Longest+1)], 0)
	switch {
	case i >= 0:
		return string(p[at : at+i]), at + i + 1, nil
	case len(p) > at+socks4Longest:
		return "", 0, malformed("a user's or a host's name in SOCKS4 is longer than %d bytes", socks4Longest)
	}
	return "", 0, nil
}

// ask records what the client wants.
func (w *socksServer) ask(protocol string, command byte, host string, port uint16) error {
	w.r.protocol = protocol
	switch {
	case command == socksConnect:
		if port == 0 {
			return malformed("a connection to port 0")
		}
	case command == socksBind && w.c.bind:
		w.r.command = CommandBind
	case command == socksAssociate && w.c.associate && protocol == "socks5":
		w.r.command = CommandAssociate
	default:
		return ErrCommand
	}
	if a, err := netip.ParseAddr(host); err != nil || a.Zone() != "" {
		if err := checkName(host); err != nil {
			return err
		}
	}
	w.r.dest = joinDestination(host, port)
	return nil
}

func (w *socksServer) accept(_ Command, a net.Addr) []byte { return w.granted(a) }
func (w *socksServer) bound(a net.Addr) []byte             { return w.granted(a) }

func (w *socksServer) granted(a net.Addr) []byte {
	if w.version == socks4 {
		return reply4(reply4Granted, a)
	}
	return reply5(reply5Granted, a)
}

// refuse returns the reply that reports err; nil if there is none.
func (w *socksServer) refuse(err error) []byte {
	switch {
	case err == nil:
		return nil
	case w.version == socks4:
		return reply4(reply4Rejected, nil)
	}
	return reply5(code5(err), nil)
}
