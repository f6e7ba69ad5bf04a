package layer

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/timeout"
)

// Above is what is above a layer.
type Above struct {
	// Make makes the protocol for the layer's transport, once the layer has
	// agreed with its peer. Returning nil refuses the connection.
	Make weir.Factory
	// Failed is called instead if that never happens, with the reason. It is
	// called once, and not from within the call that caused the failure if that
	// call came from above.
	Failed func(err *weir.AttemptError)
}

// Layer makes one layer: given what goes above it, it returns what goes above
// the transport below. One Layer serves any number of connections, on one loop
// or several, unless it says otherwise.
type Layer func(Above) Above

// Stack combines several layers into one, the one nearest the wire first.
// Without layers it returns a Layer that changes nothing.
func Stack(layers ...Layer) Layer {
	return func(a Above) Above {
		for i := len(layers) - 1; i >= 0; i-- {
			a = layers[i](a)
		}
		return a
	}
}

// Server puts layers, the one nearest the wire first, under the protocols that
// f makes, for Listen. A connection on which a layer cannot agree with its peer
// is reported to the loop as an *AttemptError; f is not called for it.
func Server(f weir.Factory, layers ...Layer) weir.Factory {
	return ServerFunc(f, nil, layers...)
}

// ServerFunc is like Server, but calls failed for connections that were never
// established; t is the socket's transport.
func ServerFunc(f weir.Factory, failed func(t weir.Transport, err *weir.AttemptError), layers ...Layer) weir.Factory {
	stack := Stack(layers...)
	return func(t weir.Transport) weir.Protocol {
		return stack(Above{Make: f, Failed: func(err *weir.AttemptError) {
			if failed != nil {
				failed(t, err)
				return
			}
			t.Loop().Report(err)
		}}).Make(t)
	}
}

// Client puts layers, the one nearest the wire first, under p, for Connect. If
// a layer cannot agree with its peer, p gets ConnectFailed with the stage, as
// for a connect that failed; if p is not a ConnectFailer, the loop's error
// handler gets the failure.
func Client(p weir.Protocol, layers ...Layer) weir.Protocol {
	if len(layers) == 0 {
		return p
	}
	return &client{p: p, stack: Stack(layers...)}
}

// client waits for the connect, and then makes way for the lowest layer.
type client struct {
	weir.NopProtocol // until the connection is made
	p                weir.Protocol
	stack            Layer
	agreed           func(*weir.AttemptError) // nil: no one asked
}

var (
	_ weir.Handshaker         = (*client)(nil)
	_ weir.Protocol           = (*client)(nil)
	_ weir.ConnectFailer      = (*client)(nil)
	_ weir.MaybeConnectFailer = (*client)(nil)
	_ weir.AttemptFailer      = (*client)(nil)
)

func (c *client) OnHandshake(f func(err *weir.AttemptError)) { c.agreed = f }

func (c *client) ConnectionMade(t weir.Transport) {
	p := c.p
	Start(t, Above{
		Make: func(weir.Transport) weir.Protocol {
			if f := c.agreed; f != nil {
				c.agreed = nil // it would keep the connect in memory
				f(nil)
			}
			return p
		},
		Failed: func(err *weir.AttemptError) {
			if f := c.agreed; f != nil {
				f(err)
				return
			}
			t.Loop().TellConnectFailed(p, &weir.ConnectError{
				Network: t.RemoteAddr().Network(), Address: t.RemoteAddr().String(),
				Stage: err.Stage, Attempts: []*weir.AttemptError{err},
			})
		},
	}, c.stack)
}

func (c *client) ConnectFailed(err *weir.ConnectError) {
	if f, ok := c.p.(weir.ConnectFailer); ok {
		f.ConnectFailed(err)
	}
}

func (c *client) TakesConnectFailed() bool { return weir.TakesConnectFailed(c.p) }

func (c *client) AttemptFailed(err *weir.AttemptError, next []net.Addr) {
	if f, ok := c.p.(weir.AttemptFailer); ok {
		f.AttemptFailed(err, next)
	}
}

// Start puts layers, the one nearest the wire first, on an open connection, and
// above on top of them. The next byte that t reads, including any that its
// protocol has not used, goes to the lowest layer. Start replaces t's protocol,
// which is not called any more, and ends a pause of reading that this protocol
// asked for.
func Start(t weir.Transport, above Above, layers ...Layer) {
	p := Stack(layers...)(above).Make(t)
	if p == nil {
		_ = t.Close()
		return
	}
	t.SetProtocol(p)
	t.ResumeReading()
	p.ConnectionMade(t)
}

// ErrTimeout is the cause when a layer's peer took too long. It is a timeout in
// the sense of net.Error, and matches os.ErrDeadlineExceeded and
// context.DeadlineExceeded.
var ErrTimeout error = timeout.New("timed out")

// ErrEarlyEnd is the cause when a peer ended the stream before a layer had
// agreed with it.
var ErrEarlyEnd = errors.New("the peer ended the stream during the layer's handshake")

// ErrNothingCame is part of the reason when a peer ended or reset its
// connection before it had sent anything to the layer: mostly a health check,
// which only tests whether it can connect.
var ErrNothingCame = errors.New("the peer left before it sent anything")

// unheardError is err, and also matches ErrNothingCame.
type unheardError struct{ err error }

func (e *unheardError) Error() string        { return e.err.Error() }
func (e *unheardError) Unwrap() error        { return e.err }
func (e *unheardError) Is(target error) bool { return target == ErrNothingCame } //nolint:errorlint // as errors.Is wants it

// Unheard returns err as the reason for a connection that ended before its peer
// had sent anything: if err is an end or a reset, the result also matches
// ErrNothingCame.
func Unheard(err error) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // only the outermost counts
		return &Error{Layer: e.Layer, Err: Unheard(e.Err)}
	}
	if errors.Is(err, ErrEarlyEnd) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED) {
		return &unheardError{err}
	}
	return err
}

// Error is the reason when a layer ended a connection: it says which layer, and
// why.
type Error struct {
	Layer string // the layer's name, such as "tls"
	Err   error
}

func (e *Error) Error() string {
	// The texts of crypto/tls already begin with "tls: ".
	return e.Layer + ": " + strings.TrimPrefix(fmt.Sprint(e.Err), e.Layer+": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
