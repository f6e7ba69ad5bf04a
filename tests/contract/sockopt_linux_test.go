package contract

import (
	"errors"
	"math"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// TestTuner: the options of an open socket are set through layers, as the kernel's own
// record shows, and what is out of range never gets there (R38).
func TestTuner(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		f, err := conn.(*net.TCPConn).File()
		_ = conn.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		own := int(f.Fd()) // shares the socket with what is attached
		fd, err := unix.Dup(own)
		if err != nil {
			t.Fatal(err)
		}
		var top weir.Transport
		lost := false
		stack := layer.Server(func(tr weir.Transport) weir.Protocol {
			top = tr
			return &lastWords{lost: func(error) { lost = true }}
		}, layer.Idle(layer.IdleConfig{Idle: time.Hour}), layer.Idle(layer.IdleConfig{Idle: time.Hour}))
		if _, err := l.Attach(fd, "tuned", stack); err != nil {
			t.Fatal(err)
		}
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		tuner, ok := weir.As[weir.Tuner](top)
		if !ok {
			t.Fatal("no Tuner through the layers")
		}
		kernel := func(level, name int) int {
			t.Helper()
			v, err := unix.GetsockoptInt(own, level, name)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		check := func(what string, err error, level, name, want int) {
			t.Helper()
			if got := kernel(level, name); err != nil || got != want {
				t.Errorf("%s: %v; the kernel has %d, want %d", what, err, got, want)
			}
		}
		for _, on := range []bool{false, true} {
			want := 0
			if on {
				want = 1
			}
			check("SetNoDelay", tuner.SetNoDelay(on), unix.IPPROTO_TCP, unix.TCP_NODELAY, want)
		}
		check("SetKeepAlive", tuner.SetKeepAlive(6500*time.Millisecond), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 7)
		check("SetKeepAlive", nil, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 7)
		check("SetKeepAlive", nil, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		check("SetKeepAlive", tuner.SetKeepAlive(0), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
		check("SetUserTimeout", tuner.SetUserTimeout(1500*time.Microsecond), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 2)
		check("SetUserTimeout", tuner.SetUserTimeout(0), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0)
		if err := tuner.SetDSCP(46); l.Backend().Name == "portable" {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("DSCP on portable: %v", err)
			}
		} else {
			check("SetDSCP", err, unix.IPPROTO_IP, unix.IP_TOS, 46<<2)
		}
		receive := kernel(unix.SOL_SOCKET, unix.SO_RCVBUF)
		check("SetSocketBuffers", tuner.SetSocketBuffers(30_000, 0), unix.SOL_SOCKET, unix.SO_SNDBUF, 60_000)
		check("SetSocketBuffers, left alone", nil, unix.SOL_SOCKET, unix.SO_RCVBUF, receive)
		check("SetSocketBuffers", tuner.SetSocketBuffers(0, 20_000), unix.SOL_SOCKET, unix.SO_RCVBUF, 40_000)
		if s, r, err := tuner.SocketBuffers(); err != nil || s != 60_000 || r != 40_000 {
			t.Errorf("SocketBuffers: %d, %d, %v", s, r, err)
		}
		if i, err := tuner.TCPInfo(); err != nil || i.MSS <= 0 || i.Window <= 0 || i.RTT <= 0 || i.RTT > time.Minute || i.PathMTU < i.MSS {
			t.Errorf("TCPInfo: %+v, %v", i, err)
		}

		// Out of range: refused here, and the kernel keeps what it had.
		check("SetKeepAlive", tuner.SetKeepAlive(time.Minute), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60)
		class := kernel(unix.IPPROTO_IP, unix.IP_TOS)
		for what, err := range map[string]error{
			"SetKeepAlive above":     tuner.SetKeepAlive(32768 * time.Second),
			"SetUserTimeout above":   tuner.SetUserTimeout((math.MaxInt32 + 1) * time.Millisecond),
			"SetUserTimeout below":   tuner.SetUserTimeout(-1),
			"SetDSCP above":          tuner.SetDSCP(64),
			"SetSocketBuffers below": tuner.SetSocketBuffers(10_000, -1),
			"SetSocketBuffers above": tuner.SetSocketBuffers(1<<30+1, 10_000),
		} {
			var opt *weir.OptionError
			if !errors.As(err, &opt) {
				t.Errorf("%s: %v", what, err)
			}
		}
		check("refused", nil, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60)
		check("refused", nil, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0)
		check("refused", nil, unix.IPPROTO_IP, unix.IP_TOS, class)
		check("refused", nil, unix.SOL_SOCKET, unix.SO_SNDBUF, 60_000)
		check("refused", nil, unix.SOL_SOCKET, unix.SO_RCVBUF, 40_000)

		top.Abort()
		turns(t, l, "the end", func() bool { return lost })
		if err := tuner.SetNoDelay(true); !errors.Is(err, weir.ErrClosed) {
			t.Errorf("an option of a closed socket: %v", err)
		}

		// What is not TCP, or no socket, says so.
		unixSocket, pipe := ends(t, l)
		for what, err := range map[string]error{
			"SetNoDelay":     unixSocket.SetNoDelay(true),
			"SetKeepAlive":   unixSocket.SetKeepAlive(time.Second),
			"SetUserTimeout": unixSocket.SetUserTimeout(time.Second),
			"SetDSCP":        unixSocket.SetDSCP(1),
			"pipe":           pipe.SetSocketBuffers(10_000, 10_000),
		} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := unixSocket.SetSocketBuffers(10_000, 0); err != nil {
			t.Errorf("a UNIX socket's buffers: %v", err)
		}
	})
}

// ends are one end of a socket pair and one of a pipe.
func ends(t *testing.T, l *weir.Loop) (unixSocket, pipe weir.Tuner) {
	t.Helper()
	nop := func(weir.Transport) weir.Protocol { return weir.NopProtocol{} }
	a, _, err := l.SocketPair(nop, nop)
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := l.Pipe(nop, nop)
	if err != nil {
		t.Fatal(err)
	}
	unixSocket, _ = weir.As[weir.Tuner](a)
	pipe, _ = weir.As[weir.Tuner](r)
	return unixSocket, pipe
}

// TestTunerSimulated: the simulator takes the same options, and says what it lacks.
func TestTunerSimulated(t *testing.T) {
	s := weirtest.NewSim(t, 1)
	server, client := s.Host("server"), s.Host("client")
	if _, err := server.Loop().Listen("tcp", server.Addr(80), func(weir.Transport) weir.Protocol { return weir.NopProtocol{} }); err != nil {
		t.Fatal(err)
	}
	p := &awaiting{}
	client.Loop().Connect("tcp", server.Addr(80), p)
	s.Until("the connection", func() bool { return p.t != nil })
	tuner, _ := weir.As[weir.Tuner](p.t)
	if err := errors.Join(tuner.SetNoDelay(false), tuner.SetKeepAlive(time.Second), tuner.SetUserTimeout(time.Second), tuner.SetDSCP(1), tuner.SetSocketBuffers(1<<20, 0)); err != nil {
		t.Error(err)
	}
	if send, _, err := tuner.SocketBuffers(); send != 2<<20 || err != nil {
		t.Errorf("a buffer of %d bytes, %v", send, err)
	}
	if _, err := tuner.TCPInfo(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("TCPInfo: %v", err)
	}
}
