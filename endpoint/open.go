package endpoint

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/executor"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/process"
	"github.com/weir-io/weir/sink"
	"github.com/weir-io/weir/utp"
)

// Env is the environment that endpoints are opened in. This package only reads
// its fields.
type Env struct {
	Loop *weir.Loop
	// Group spreads the connections of listeners over its loops, of which Loop must be one
	// (see weir.WithGroup); nil: they stay on Loop. An endpoint for which OnLoops is false
	// ignores it.
	Group *weir.Group
	// Stdin and Stdout are the descriptors that stdio takes over and closes.
	Stdin, Stdout int
	// Serves says that any number of connections is served. A connection whose
	// peer has ended its direction has then most likely been given up by the
	// peer, and is not kept for long.
	Serves bool
	// Raw has stdio pass on what is typed on a terminal as it is, until its escape key:
	// the program has set the terminal so. stdio,raw does the same.
	Raw bool
	// Executor starts programs, and reads and writes files; nil: exec, pty and file fail.
	Executor *executor.Executor
	// Environ is the environment of programs, of entries "KEY=value"; nil: it is empty.
	// ChildEnv is added to it, and counts where both have a key. Both are read when a
	// program is started, and stay the caller's.
	Environ  func() []string
	ChildEnv []string
	// Window is the size of new terminals; zero: it stays unset.
	Window process.Size
	// Child is called on the loop's goroutine with each program that was started, after the
	// ConnectionMade of its connection, and not for one whose connect was stopped; nil: no
	// one is told. The Process is the callee's to signal and to wait for: no one else ends
	// it, other than by its connection's end, which closes its input.
	Child func(*process.Process)
	// Home is what ~/ stands for; with "" a ~/ stays as it is.
	Home string
	// LookupEnv reads an environment variable; nil: there are none.
	LookupEnv func(key string) (string, bool)
	// Note is told what a person may want to know, such as that a stale socket
	// was replaced; nil: no one is told.
	Note func(text string)
	// Warn is told what a person must know even if they asked for silence, such
	// as that a certificate is not verified; nil: Note is told.
	Warn func(text string)
	// Access holds the rules for where dial may connect to; nil: those of the
	// zero proxy.Access. If its Own is nil, it means the listeners of Loop.
	Access *proxy.Access
	// Resolver turns the names that connects go to into addresses; nil: the
	// loop's resolver does.
	Resolver weir.Resolver
	// Own returns the addresses that a relay itself listens on
	// (weir.Loop.ListenAddrs). A connect that would reach one fails with a
	// *SelfError. nil: there are none.
	Own func() []net.Addr
	// Stderr is where +log writes without to=; nil: a Sink of its own in front of
	// os.Stderr.
	Stderr *sink.Sink
	// JSON makes +log write JSON to Stderr, each event as an object on a line.
	JSON bool
	// Opened is told of each Sink that a layer has started, so that the program
	// can close it when it ends; nil: what is still waiting then is lost.
	Opened func(*sink.Sink)
	// Trouble is told, on any goroutine, that the file of a log or a recording
	// could not be written to or, with sink.ErrFull, does not keep up; a nil
	// error says that it works again. lossless says that connections wait for
	// the file. Trouble must not block. nil: no one is told.
	Trouble func(path string, lossless bool, err error)
	// Failed is told of a connection to a listener that was never established
	// because a layer could not agree with the peer; t is the socket's
	// transport. nil: the loop's error handler is told.
	Failed func(t weir.Transport, err *weir.AttemptError)
	// UTP makes the connections of uTP; nil: each comes from a port of its own. Its
	// loop is Loop.
	UTP *utp.Dialer
}

func (env *Env) lookup(key string) (string, bool) {
	if env.LookupEnv == nil {
		return "", false
	}
	return env.LookupEnv(key)
}

// each is a loop's part of a bound that is dealt out to the loops of the group, at least 1.
func (env *Env) each(n int) int {
	if env.Group == nil {
		return n
	}
	return max(n/len(env.Group.Loops()), 1)
}

func (env *Env) note(text string) {
	if env.Note != nil {
		env.Note(text)
	}
}

func (env *Env) warn(text string) {
	if env.Warn != nil {
		env.Warn(text)
		return
	}
	env.note(text)
}

// OnLoops reports whether connections of the endpoint can be on several loops at once: a
// listener spreads them (Env.Group), and connects may be made with an Env for each loop.
// They share what Prepare made, which must be called before the second loop runs.
func (e *Endpoint) OnLoops() bool { return e.kind.OnLoops }

// ErrRole is returned by Listen on an endpoint that does not listen.
var ErrRole = errors.New("address: this endpoint does not listen")

// Listeners holds what one listening endpoint opened: several listeners if it
// takes several sockets, such as localhost in both address families. The
// methods belong to the loop's goroutine.
type Listeners struct{ all []Listener }

// Addrs returns the addresses that the endpoint listens on.
func (l *Listeners) Addrs() []net.Addr {
	var addrs []net.Addr
	for _, ln := range l.all {
		addrs = append(addrs, ln.Addr())
	}
	return addrs
}

// Conns returns how many of its connections are open.
func (l *Listeners) Conns() int {
	n := 0
	for _, ln := range l.all {
		n += ln.Conns()
	}
	return n
}

// Close stops accepting; connections stay. It always returns nil.
func (l *Listeners) Close() error {
	for _, ln := range l.all {
		_ = ln.Close() // a listener's Close returns nil on its own loop
	}
	return nil
}

// OnDone calls f from the loop's queue once all listeners are closed and their
// connections are gone.
func (l *Listeners) OnDone(f func()) {
	left := len(l.all)
	for _, ln := range l.all {
		ln.OnDone(func() {
			if left--; left == 0 {
				f()
			}
		})
	}
}

// Prepare does the work that all connections of the endpoint share, such as
// reading certificates, unless it has been done before. Listen and Connect call
// it themselves; a program that wants to learn of mistakes early calls it
// first. The error is a *LayerError, or a *KindError if it is about the base.
// Call it on the loop's goroutine, or before the loop runs.
func (e *Endpoint) Prepare(env *Env) error {
	if !e.looked && e.kind.Prepare != nil {
		if err := e.kind.Prepare(env, e.Base); err != nil {
			return &KindError{Kind: e.kind.Name, Err: err}
		}
	}
	if !e.looked { // sessions on several loops call this at once, and only read
		e.looked = true
	}
	if e.prepared != nil || len(e.layers) == 0 {
		return nil
	}
	var all []Prepared
	for i, l := range e.layers {
		e.aim(i)
		p, err := l.Prepare(env, e.Layers[i], e.Role())
		if err != nil {
			return &LayerError{Layer: l.Name, Err: err}
		}
		all = append(all, p)
	}
	e.prepared = all
	return nil
}

// aim sets where the connection leads as seen by layer i.
func (e *Endpoint) aim(i int) {
	p := e.Layers[i]
	p.overTLS = false
	for j := i - 1; j >= 0; j-- {
		if e.layers[j].Arg.Type != HostPort {
			p.overTLS = p.overTLS || strings.HasPrefix(e.layers[j].Name, "tls")
			continue
		}
		// A proxy without an argument is asked for what the other side asked
		// for.
		p.target, p.targetAsked = e.Layers[j].ArgText(), e.Layers[j].Arg == nil
		return
	}
	switch {
	case e.kind.Arg.Type == HostPort:
		p.target = e.Base.ArgText()
	case e.Role() == Dial && e.kind.Arg.Type == nil:
		p.targetAsked = true
	}
}

// stack makes the layers of one connection.
func (e *Endpoint) stack(asked Asked) []layer.Layer {
	var layers []layer.Layer
	for _, p := range e.prepared {
		layers = append(layers, p(asked))
	}
	return layers
}

// LayerError reports a layer that could not be prepared.
type LayerError struct {
	Layer string
	Err   error
}

func (e *LayerError) Error() string { return "layer " + e.Layer + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *LayerError) Unwrap() error { return e.Err }

// KindError reports a base that could not be prepared.
type KindError struct {
	Kind string
	Err  error
}

func (e *KindError) Error() string { return e.Kind + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *KindError) Unwrap() error { return e.Err }

// Listen starts listening. f makes the protocol above the layers once they have
// agreed with the peer, and gets the transport above them. It runs on the
// loop's goroutine, or before the loop runs. The errors are those of
// Loop.Listen, ErrRole, *KindError and *LayerError; after an error nothing
// stays open.
func (e *Endpoint) Listen(env *Env, f weir.Factory) (*Listeners, error) {
	if e.Role() != Listen || e.kind.Listen == nil {
		return nil, ErrRole
	}
	if err := e.Prepare(env); err != nil {
		return nil, err
	}
	if layers := e.stack(Asked{}); len(layers) > 0 {
		f = layer.ServerFunc(f, env.Failed, layers...)
	}
	all, err := e.kind.Listen(env, e.Base, f)
	if err != nil {
		return nil, err
	}
	return &Listeners{all: all}, nil
}

// Connect connects p, or attaches it to what is open already. p is called from
// the loop, never from within Connect: with ConnectionMade once all layers are
// up, or, if it is a weir.ConnectFailer, with ConnectFailed. On a base with the
// option retry, connecting is tried again until that time is up. Call it on the
// loop's goroutine, or before the loop runs.
func (e *Endpoint) Connect(env *Env, p weir.Protocol) *Connecting {
	return e.ConnectFor(env, Asked{}, p)
}

// ConnectFor is Connect for a connection that the other side asked for: a proxy
// layer without an argument, or a kind that has no target of its own, goes
// where the other side asked to go.
func (e *Endpoint) ConnectFor(env *Env, asked Asked, p weir.Protocol) *Connecting {
	c := &Connecting{env: env, endpoint: e, asked: asked, proto: p}
	err := e.Prepare(env)
	if err == nil && (e.Role() == Listen || e.kind.Connect == nil) {
		err = ErrRole
	}
	if err != nil {
		call := env.Loop.Soon(func() { c.fail(&weir.ConnectError{Address: e.Label(), Stage: weir.StageSocket, Err: err}) })
		c.stop = func() { call.Cancel() }
		return c
	}
	if d := e.Base.Duration("retry"); d > 0 {
		b := weir.Backoff{First: retryFirst, Most: retryMost, Total: d}
		c.redial = env.Loop.RedialFunc(c.connect, b, func(*weir.Redialer) weir.Protocol { return c.attempt() })
		c.stop = c.redial.Stop
		return c
	}
	c.stop = c.connect(c.attempt())
	return c
}

// The first wait before another attempt is at most retryFirst, every wait at most
// retryMost.
const (
	retryFirst = 75 * time.Millisecond
	retryMost  = time.Second
)

// Connecting is a connect in progress. Its methods belong to the loop's
// goroutine.
type Connecting struct {
	env      *Env
	endpoint *Endpoint
	proto    weir.Protocol
	asked    Asked
	stop     func()
	redial   *weir.Redialer // nil: there is only one attempt
	tries    int
	retrying func(*weir.ConnectError)
	over     bool
}

// Stop ends the connect; nothing is called back afterwards. It returns false if
// the connect was over already.
func (c *Connecting) Stop() bool {
	if c.over {
		return false
	}
	c.over = true
	c.stop()
	return true
}

// OnRetry makes f be called for each failed attempt that is followed by
// another, with its error, never from within a call by the program.
func (c *Connecting) OnRetry(f func(err *weir.ConnectError)) { c.retrying = f }

// Tries returns how many attempts have been made.
func (c *Connecting) Tries() int { return c.tries }

// attempt makes the protocol of the next attempt.
func (c *Connecting) attempt() weir.Protocol {
	c.tries++
	return layer.Client(&attempt{c: c}, c.endpoint.stack(c.asked)...)
}

// connect begins an attempt.
func (c *Connecting) connect(p weir.Protocol) (stop func()) {
	return c.endpoint.kind.Connect(c.env, c.endpoint.Base, c.asked.To, p)
}

// attempt is the protocol on top of one attempt; it gives way to the real one
// when the connection is made. Each attempt gets new layers.
type attempt struct {
	weir.NopProtocol
	c *Connecting
}

var (
	_ weir.Protocol      = (*attempt)(nil)
	_ weir.AttemptFailer = (*attempt)(nil)
	_ weir.ConnectFailer = (*attempt)(nil)
)

func (a *attempt) ConnectionMade(t weir.Transport) {
	if a.c.over {
		t.SetProtocol(weir.NopProtocol{}) // it was made too late
		t.Abort()
		return
	}
	a.c.over = true
	t.SetProtocol(a.c.proto)
	a.c.proto.ConnectionMade(t)
}

func (a *attempt) AttemptFailed(err *weir.AttemptError, next []net.Addr) {
	if f, ok := a.c.proto.(weir.AttemptFailer); ok && !a.c.over {
		f.AttemptFailed(err, next)
	}
}

func (a *attempt) ConnectFailed(err *weir.ConnectError) {
	c := a.c
	if c.over {
		return
	}
	again := false
	if c.redial != nil && !hopeless(err) {
		_, again = c.redial.Again()
	}
	if !again {
		c.fail(err)
		return
	}
	if c.retrying != nil {
		c.retrying(err)
	}
}

func (c *Connecting) fail(err *weir.ConnectError) {
	c.over = true
	c.env.Loop.TellConnectFailed(c.proto, err)
}

// hopeless reports whether trying again later cannot help.
func hopeless(err *weir.ConnectError) bool {
	var (
		addr    *net.AddrError
		network net.UnknownNetworkError
		layer   *LayerError
		self    *SelfError
		start   *process.StartError
		missing *weir.MissingSocketError
	)
	return errors.As(err, &addr) || errors.As(err, &network) || errors.As(err, &layer) || errors.As(err, &self) || errors.As(err, &start) ||
		errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.ENOTTY) || errors.As(err, &missing) || errors.Is(err, weir.ErrLoopClosed) || errors.Is(err, weir.ErrStopped)
}

// soon attaches from the loop, so that nothing is called back before the caller
// returns.
func soon(env *Env, network, address string, proto weir.Protocol, attach func() error) (stop func()) {
	call := env.Loop.Soon(func() {
		if err := attach(); err != nil {
			env.Loop.TellConnectFailed(proto, &weir.ConnectError{Network: network, Address: address, Stage: weir.StageSocket, Err: err})
		}
	})
	return func() { call.Cancel() }
}
