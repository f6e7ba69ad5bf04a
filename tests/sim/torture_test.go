package sim

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/backend/sim"
)

// tortureEnd is a protocol that counts its callbacks and acts by a script.
type tortureEnd struct {
	log     *strings.Builder
	name    string
	t       weir.Transport
	made    int
	lost    int
	failed  int
	onMade  func(*tortureEnd)
	onData  func(*tortureEnd, []byte)
	onEOF   func(*tortureEnd) bool
	got     int
	problem string
}

func (p *tortureEnd) ConnectionMade(t weir.Transport) {
	p.t = t
	p.made++
	if p.onMade != nil {
		p.onMade(p)
	}
}

func (p *tortureEnd) DataReceived(b []byte) (int, error) {
	if p.made != 1 || p.lost != 0 {
		p.problem = "data outside of the connection"
	}
	p.got += len(b)
	if p.onData != nil {
		p.onData(p, b)
	}
	return len(b), nil
}

func (p *tortureEnd) EOFReceived(int) (bool, error) {
	return p.onEOF != nil && p.onEOF(p), nil
}

func (p *tortureEnd) ConnectionLost(err error) {
	p.lost++
	fmt.Fprintf(p.log, "%s lost: %v\n", p.name, err)
}

func (p *tortureEnd) ConnectFailed(err *weir.ConnectError) {
	p.failed++
	fmt.Fprintf(p.log, "%s failed: %v\n", p.name, err)
}

// tortures are the scenarios: what the client and the server do.
var tortures = []struct {
	name, network  string
	client, server func(*tortureEnd)
}{
	{name: "echo, client closes", network: "tcp", client: func(p *tortureEnd) {
		p.onMade = func(p *tortureEnd) { _, _ = p.t.Write(make([]byte, 3000)) }
		p.onData = func(p *tortureEnd, _ []byte) {
			if p.got == 3000 {
				p.t.Close()
			}
		}
	}, server: tortureEcho},
	{name: "half-close, then the reply", network: "tcp", client: func(p *tortureEnd) {
		p.onMade = func(p *tortureEnd) { _, _ = p.t.Write([]byte("request")); _ = p.t.WriteEOF() }
	}, server: func(p *tortureEnd) {
		p.onEOF = func(p *tortureEnd) bool {
			p.t.Loop().After(200*time.Millisecond, func() { _, _ = p.t.Write([]byte("reply")); p.t.Close() })
			return true
		}
	}},
	{name: "server speaks first and closes", network: "tcp", server: func(p *tortureEnd) {
		p.onMade = func(p *tortureEnd) { _, _ = p.t.Write(make([]byte, 100_000)); p.t.Close() }
	}},
	{name: "client aborts", network: "tcp", client: func(p *tortureEnd) {
		p.onMade = func(p *tortureEnd) { _, _ = p.t.Write(make([]byte, 3000)) }
		p.onData = func(p *tortureEnd, _ []byte) { p.t.Abort() }
	}, server: tortureEcho},
	{name: "close with a backlog and a reader that pauses", network: "tcp", client: func(p *tortureEnd) {
		p.onMade = func(p *tortureEnd) { _, _ = p.t.Write(make([]byte, 2<<20)); p.t.Close() }
	}, server: func(p *tortureEnd) {
		p.onData = func(p *tortureEnd, _ []byte) {
			if p.got < 200_000 {
				p.t.PauseReading()
				p.t.Loop().After(time.Millisecond, p.t.ResumeReading)
			}
		}
	}},
	{name: "nobody listens", network: "refused"},
	{name: "UNIX echo", network: "unix", client: func(p *tortureEnd) {
		p.onMade = func(p *tortureEnd) { _, _ = p.t.Write(make([]byte, 3000)); _ = p.t.WriteEOF() }
	}, server: tortureEcho},
}

func tortureEcho(p *tortureEnd) {
	p.onData = func(p *tortureEnd, b []byte) { _, _ = p.t.Write(b) }
}

// torture runs a scenario with whatever rig does to the world and returns the
// world and what went wrong. A Wait that fails ends its loop's run, and nothing
// else.
func torture(t *testing.T, k int, waitFails bool, rig func(*sim.World)) (*sim.World, []string) {
	sc := tortures[k]
	w := sim.New(1, sim.Config{})
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	loop := func(h *sim.Host) *weir.Loop {
		b, err := h.Backend()
		if err != nil {
			t.Fatal(err)
		}
		l, err := weir.NewLoop(weir.WithBackend(b), weir.WithLogger(quiet))
		if err != nil {
			t.Fatal(err)
		}
		b.Drive(l)
		return l
	}
	hs, hc := w.Host("s"), w.Host("c")
	network, listen, to := "tcp", ":80", fmt.Sprintf("%v:80", w.Lookup("s")[0])
	if sc.network == "unix" {
		network, listen, to, hc = "unix", "/run/s", "/run/s", hs
	}
	if sc.network == "refused" {
		listen = ":81"
	}
	server, client := loop(hs), loop(hc)
	var log strings.Builder
	var problems []string
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	rig(w)
	var servers []*tortureEnd
	ln, _ := server.Listen(network, listen, func(weir.Transport) weir.Protocol {
		p := &tortureEnd{log: &log, name: "server"}
		if sc.server != nil {
			sc.server(p)
		}
		servers = append(servers, p)
		return p
	})
	cl := &tortureEnd{log: &log, name: "client"}
	if sc.client != nil {
		sc.client(cl)
	}
	client.Connect(network, to, cl, weir.WithConnectTimeout(time.Minute))
	// An end that is left waiting when a call failed gives up after a while.
	client.After(time.Hour, func() {
		if cl.t != nil {
			cl.t.Abort()
		}
	})
	if err := w.RunFor(2 * time.Hour); err != nil && (!waitFails || errors.Is(err, sim.ErrSpin)) {
		bad("run: %v", err)
	}
	if ln != nil {
		ln.Close()
	}
	for _, l := range []*weir.Loop{server, client} {
		if err := l.Close(); err != nil && !waitFails {
			bad("close: %v", err)
		}
	}
	if cl.made+cl.failed != 1 || cl.made != cl.lost || cl.problem != "" {
		bad("client: made %d, failed %d, lost %d %s", cl.made, cl.failed, cl.lost, cl.problem)
	}
	for _, p := range servers {
		if p.made != 1 || p.lost != 1 || p.failed != 0 || p.problem != "" {
			bad("server: made %d, lost %d %s", p.made, p.lost, p.problem)
		}
	}
	for w.Step() {
	}
	if u := w.Usage(); u != (sim.Usage{}) {
		bad("left over: %+v (G6)", u)
	}
	for _, v := range w.Violations() {
		bad("contract: %s", v)
	}
	if len(problems) > 0 {
		problems = append(problems, log.String())
	}
	return w, problems
}

// Every call that can fail fails once, with each errno that it can have, and
// nothing is lost, doubled or left behind (G1, G6, R13).
func TestSimTorture(t *testing.T) {
	resources := []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EACCES}
	broken := []error{syscall.ECONNRESET, syscall.ETIMEDOUT, syscall.EPIPE, syscall.EIO, syscall.EHOSTUNREACH, syscall.ENOBUFS}
	kinds := []struct {
		what sim.What
		errs []error
	}{
		{sim.OpenCall, append(resources, syscall.EADDRINUSE, syscall.EADDRNOTAVAIL)},
		{sim.AcceptCall, append(resources, syscall.ECONNABORTED, syscall.EPERM, syscall.EPROTO, syscall.EINVAL)},
		{sim.ConnectCall, []error{syscall.ECONNREFUSED, syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.EAGAIN, syscall.EACCES}},
		{sim.ReadCall, broken},
		{sim.WriteCall, broken},
		{sim.HangupCall, broken},
		{sim.ShutCall, []error{syscall.EIO, syscall.ENOTCONN, syscall.EBADF}},
		{sim.NameCall, []error{syscall.ENOTCONN, syscall.EINVAL, syscall.ENOBUFS}},
		{sim.SetCall, []error{syscall.EINVAL, syscall.ENOPROTOOPT}},
		{sim.GetCall, []error{syscall.EINVAL, syscall.ENOPROTOOPT}},
		{sim.WaitCall, []error{syscall.EBADF, syscall.EINVAL}},
	}
	runs := 0
	for k, sc := range tortures {
		base, problems := torture(t, k, false, func(*sim.World) {})
		if len(problems) > 0 {
			t.Errorf("%s, nothing failing: %q", sc.name, problems)
			continue
		}
		for _, kind := range kinds {
			n := min(base.Calls(kind.what), 60)
			for nth := 1; nth <= n; nth++ {
				for _, err := range kind.errs {
					runs++
					_, problems := torture(t, k, kind.what == sim.WaitCall, func(w *sim.World) { w.Fail(kind.what, nth, err) })
					if len(problems) > 0 {
						t.Errorf("%s, %v %d of %d fails with %v: %s", sc.name, kind.what, nth, n, err, strings.Join(problems, "; "))
					}
				}
			}
		}
		// And every read and write takes one byte only.
		for _, what := range []sim.What{sim.ReadCall, sim.WriteCall} {
			for nth := 1; nth <= min(base.Calls(what), 60); nth++ {
				runs++
				if _, problems := torture(t, k, false, func(w *sim.World) { w.Short(what, nth, 1) }); len(problems) > 0 {
					t.Errorf("%s, %v %d short: %s", sc.name, what, nth, strings.Join(problems, "; "))
				}
			}
		}
	}
	t.Logf("%d runs", runs)
}
