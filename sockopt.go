package weir

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/sys"
)

// Tuner is the ability of a transport to change the options of its socket while it is
// open. Find it with As; through layers, it is the lowest transport's socket that is
// meant. The methods belong to the loop's goroutine.
//
// A value out of range is an *OptionError, and nothing is changed. What the network, the
// backend or the system lacks is errors.ErrUnsupported: a pipe has no such options at
// all, a UNIX socket only buffers, and the portable backend no DSCP. After the close the
// error is ErrClosed.
type Tuner interface {
	// SetNoDelay turns Nagle's algorithm off (TCP_NODELAY), as weir does from the start,
	// or on. TCP only.
	SetNoDelay(on bool) error
	// SetKeepAlive sets the idle time and interval of TCP's keep-alive probes, as
	// WithKeepAlive does; 0 and below turn them off.
	SetKeepAlive(d time.Duration) error
	// SetUserTimeout bounds how long sent bytes may stay without an acknowledgment, as
	// WithUserTimeout does; 0 leaves it to the system. TCP on Linux only.
	SetUserTimeout(d time.Duration) error
	// SetDSCP marks what is sent from now on with a code point of differentiated services,
	// 0 to 63 (RFC 2474). TCP and SCTP only.
	SetDSCP(codePoint uint8) error
	// SetSocketBuffers sets the system's buffers, as WithSocketBuffers does; 0 leaves one
	// alone. TCP decides how large a window it can offer when it connects: a receive
	// buffer that is set later may not make it larger.
	SetSocketBuffers(send, receive int) error
	// SocketBuffers is how large the system's buffers are, by its own count: Linux's is
	// twice what was asked for.
	SocketBuffers() (send, receive int, err error)
	// TCPInfo is what the system knows of the connection. TCP on Linux only, and not in
	// the simulator.
	TCPInfo() (TCPInfo, error)
}

// TCPInfo is what the system knows of a TCP connection (TCP_INFO).
type TCPInfo struct {
	RTT         time.Duration // smoothed time of a round trip (RFC 6298)
	RTTVar      time.Duration // and its mean deviation
	MSS         int           // bytes of the longest segment that is sent
	Window      int           // segments that congestion control allows to be on their way
	InFlight    int           // segments that are on their way
	Lost        int           // segments of those that are taken for lost
	Backoff     int           // how many times in a row the oldest was sent again in vain
	Resent      int           // segments that were sent again since the beginning
	ReceiveMSS  int           // bytes of the longest segment that came
	PathMTU     int           // bytes of the longest packet that the path takes
	LastReceive time.Duration // since bytes last came
	LastSend    time.Duration // since bytes were last sent
}

var _ Tuner = (*stream)(nil)

// tuned calls f with the socket at the bottom, if it is of the right kind.
func (s *stream) tuned(method string, fits func(network) bool, f func(k *socket) error) error {
	if err := s.loop.check(method); err != nil {
		return err
	}
	if s.phase >= phaseShut {
		return ErrClosed
	}
	if u := s.below(); u != nil {
		return u.tuned(method, fits, f)
	}
	k, ok := s.lower.(*socket)
	switch {
	case !ok, !fits(k.net):
		return fmt.Errorf("weir: %s on %s: %w", method, s.name(), errors.ErrUnsupported)
	case k.rh == backend.None && k.wh == backend.None:
		return ErrClosed
	case k.rh != k.wh:
		return fmt.Errorf("weir: %s on the two descriptors of %s: %w", method, s.name(), errors.ErrUnsupported)
	}
	return f(k)
}

func (s *stream) setOption(method string, fits func(network) bool, o backend.Option, value int) error {
	return s.tuned(method, fits, func(k *socket) error {
		return sysError("setsockopt", k.loop.be.SetOption(k.rh, o, value))
	})
}

func isTCP(n network) bool { return n == netTCP }

func (s *stream) SetNoDelay(on bool) error {
	value := 0
	if on {
		value = 1
	}
	return s.setOption("SetNoDelay", isTCP, backend.NoDelay, value)
}

func (s *stream) SetKeepAlive(d time.Duration) error {
	if d > maxKeepAlive {
		return &OptionError{Option: "SetKeepAlive", Value: d.String(), Range: keepAliveRange}
	}
	value := 0
	if d > 0 {
		value = roundUp(d, time.Second)
	}
	return s.tuned("SetKeepAlive", isTCP, func(k *socket) error {
		k.grown()
		return sysError("setsockopt", k.loop.be.SetOption(k.rh, backend.KeepAlive, value))
	})
}

func (s *stream) SetUserTimeout(d time.Duration) error {
	if d < 0 || d > maxUnacked {
		return &OptionError{Option: "SetUserTimeout", Value: d.String(), Range: unackedRange}
	}
	value := 0
	if d > 0 {
		value = roundUp(d, time.Millisecond)
	}
	return s.setOption("SetUserTimeout", isTCP, backend.UserTimeout, value)
}

func (s *stream) SetDSCP(codePoint uint8) error {
	if codePoint > maxDSCP {
		return &OptionError{Option: "SetDSCP", Value: strconv.Itoa(int(codePoint)), Range: "from 0 to " + strconv.Itoa(maxDSCP)}
	}
	return s.setOption("SetDSCP", network.inet, backend.TrafficClass, int(codePoint)<<2)
}

func (s *stream) SetSocketBuffers(send, receive int) error {
	var c connConfig
	c.number("SetSocketBuffers", new(int), send, 0, maxBuffer)
	c.number("SetSocketBuffers", new(int), receive, 0, maxBuffer)
	if c.err != nil {
		return c.err
	}
	for _, v := range [...]backend.OptionValue{{Option: backend.SendBuffer, Value: send}, {Option: backend.ReceiveBuffer, Value: receive}} {
		if v.Value == 0 {
			continue
		}
		if err := s.setOption("SetSocketBuffers", network.socket, v.Option, v.Value); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) SocketBuffers() (send, receive int, err error) {
	err = s.tuned("SocketBuffers", network.socket, func(k *socket) error {
		var err error
		if send, err = k.loop.be.GetOption(k.rh, backend.SendBuffer); err == nil {
			receive, err = k.loop.be.GetOption(k.rh, backend.ReceiveBuffer)
		}
		return sysError("getsockopt", err)
	})
	return send, receive, err
}

func (s *stream) TCPInfo() (info TCPInfo, err error) {
	err = s.tuned("TCPInfo", isTCP, func(k *socket) error {
		return k.control(func(fd int) error {
			i, err := sys.TCPInfoOf(fd)
			info = TCPInfo(i)
			return sysError("getsockopt", err)
		})
	})
	return info, err
}
