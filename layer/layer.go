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

// Above is what stands above a layer.
type Above struct {
	// Make makes the protocol for the layer's transport, once the layer has
	// agreed with its peer. Returning nil refuses the connection.
	Make weir.Factory
	// Failed hears instead why it never came to that. It is called once, and
	// not from inside what caused it where that was a call from above.
	Failed func(err *weir.AttemptError)
}

// Layer makes one layer: given what shall stand above it, it returns what stands
// above the transport below. One Layer serves any number of connections, of one
// loop or of several, unless it says otherwise.
type Layer func(Above) Above

// Stack is several layers as one, the one nearest the wire first. No layers at
// all are a Layer that changes nothing.
func Stack(layers ...Layer) Layer {
	return func(a Above) Above {
		for i := len(layers) - 1; i >= 0; i-- {
			a = layers[i](a)
		}
		return a
	}
}

// Server puts layers, the one nearest the wire first, under the protocols that f
// makes, for Listen. A connection on which a layer cannot agree with its peer is
// reported to the loop as an *AttemptError; f never hears of it.
func Server(f weir.Factory, layers ...Layer) weir.Factory {
	return ServerFunc(f, nil, layers...)
}

// ServerFunc is Server with a function of one's own for the connections that
// never came to be; t is the socket's transport.
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
// a layer cannot agree with its peer then p, where it is a ConnectFailer, gets
// ConnectFailed with the stage, as for a connect that failed; else the loop's error
// handler gets the failure.
func Client(p weir.Protocol, layers ...Layer) weir.Protocol {
	if len(layers) == 0 {
		return p
	}
	return &client{p: p, stack: Stack(layers...)}
}

// client waits for the connect, and then makes room for the lowest layer.
type client struct {
	p      weir.Protocol
	stack  Layer
	agreed func(*weir.AttemptError) // nil: nobody asked
}

// OnAgreed implements weir.Agreer.
func (c *client) OnAgreed(f func(err *weir.AttemptError)) { c.agreed = f }

// ConnectionMade implements Protocol.
func (c *client) ConnectionMade(t weir.Transport) {
	p := c.p
	Start(t, Above{
		Make: func(weir.Transport) weir.Protocol {
			if f := c.agreed; f != nil {
				c.agreed = nil // it would keep the connect
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

// ConnectFailed implements ConnectFailer.
func (c *client) ConnectFailed(err *weir.ConnectError) {
	if f, ok := c.p.(weir.ConnectFailer); ok {
		f.ConnectFailed(err)
	}
}

// TakesConnectFailed implements weir.MaybeConnectFailer.
func (c *client) TakesConnectFailed() bool { return weir.TakesConnectFailed(c.p) }

// AttemptFailed implements weir.AttemptFailer.
func (c *client) AttemptFailed(err *weir.AttemptError, next []net.Addr) {
	if f, ok := c.p.(weir.AttemptFailer); ok {
		f.AttemptFailed(err, next)
	}
}

// DataReceived implements Protocol. No data comes before ConnectionMade.
func (c *client) DataReceived([]byte) (int, error) { return 0, nil }

// ConnectionLost implements Protocol: the lowest layer was refused.
func (c *client) ConnectionLost(error) {}

// Start puts layers, the one nearest the wire first, on a connection that is
// open, and above on top of them. The next byte that t reads, any that its
// protocol has not used included, goes to the lowest layer. It replaces t's
// protocol, which hears nothing of t any more, and ends a pause of reading that
// this one asked for.
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

// ErrTimeout is the cause where a layer's peer took too long. It is a timeout as
// net.Error has them, os.ErrDeadlineExceeded and context.DeadlineExceeded.
var ErrTimeout error = timeout.New("timed out")

// ErrEarlyEnd is the cause where a peer ended the stream before a layer had
// agreed with it.
var ErrEarlyEnd = errors.New("the peer ended the stream before the layer was agreed on")

// ErrNothingCame is in the reason of a connection whose peer ended or reset it
// before it had sent anything to the layer: mostly a health check, which only looks
// whether it can connect.
var ErrNothingCame = errors.New("the peer left before it sent anything")

// unheardError is err, and ErrNothingCame too.
type unheardError struct{ err error }

func (e *unheardError) Error() string        { return e.err.Error() }
func (e *unheardError) Unwrap() error        { return e.err }
func (e *unheardError) Is(target error) bool { return target == ErrNothingCame } //nolint:errorlint // as errors.Is wants it

// Unheard is err as the reason of a connection that ended before its peer had sent
// anything: it is ErrNothingCame too, where err is an end or a reset.
func Unheard(err error) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // only the outermost counts
		return &Error{Layer: e.Layer, Err: Unheard(e.Err)}
	}
	if errors.Is(err, ErrEarlyEnd) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNABORTED) {
		return &unheardError{err}
	}
	return err
}

// Error is the reason of a connection that a layer lost: which layer, and why.
type Error struct {
	Layer string // the layer's word, such as "tls"
	Err   error
}

func (e *Error) Error() string {
	// crypto/tls begins with "tls: " itself.
	return e.Layer + ": " + strings.TrimPrefix(fmt.Sprint(e.Err), e.Layer+": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
