package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/relay"
)

// demoThink is how long the demo's server thinks before it answers: longer than
// tools that drop a late reply would wait.
const demoThink = 700 * time.Millisecond

// demoLimit bounds the demo when no one watches.
const demoLimit = 30 * time.Second

const demoPage = `<!doctype html><title>weir</title>
<h1>It works.</h1>
<p>This page came from a server on one port, through a relay on another.
<p>Both, and the client that fetched it first, are protocols on one event loop.
`

// demo starts a web server on loopback, relays to it, fetches a page through
// the relay and reports what happened. On a terminal it stays until Ctrl-C.
func (c *command) demo(words []string, f flags) int {
	if len(words) > 0 {
		return c.usage(&usageError{problem: fmt.Sprintf("demo takes no words, such as %q", words[0])})
	}
	quiet := f
	quiet.loops = 1
	quiet.quiet = true // the demo tells its own story
	rep := newReporter(c, quiet)
	d := &demo{c: c, stay: isTerminal(c.stdout) && c.terminal}
	server, err := c.plan([]string{"tcp-listen:127.0.0.1:0", "localhost:1"}, nil, flags{})
	if err != nil {
		return c.usage(err)
	}
	a, err := newApp(c, server, quiet, rep)
	if err != nil {
		rep.fail(slog.LevelError, &advice.Failure{Problem: "cannot start: " + advice.Why(err)})
		return exitFailure
	}
	d.app = a
	code := d.run()
	if err := a.fleet.close(); err != nil {
		rep.fail(slog.LevelError, &advice.Failure{Problem: "while ending: " + advice.Why(err)})
		return exitFailure
	}
	return code
}

type demo struct {
	c      *command
	app    *app
	stay   bool
	site   *weir.Listener
	relay  string // where the relay listens
	fetch  *fetch
	result *relay.Result
	told   bool
	fault  bool
}

func (d *demo) say(format string, args ...any) {
	d.c.print(fmt.Sprintf(format, args...))
}

func (d *demo) run() int {
	a := d.app
	var err error
	d.site, err = a.loop.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol {
		return &site{loop: a.loop}
	})
	if err != nil {
		a.rep.fail(slog.LevelError, &advice.Failure{Problem: "cannot listen on loopback: " + advice.Why(err)})
		return exitFailure
	}
	to, err := d.c.plan([]string{"tcp-listen:127.0.0.1:0", d.site.Addr().String()}, nil, flags{})
	if err != nil {
		return d.c.usage(err)
	}
	a.p = to
	a.fleet.aim(to)
	a.pick = newPicker(a, flags{})
	a.observe = d.relayed
	d.c.started = d.begin
	code := a.run()
	if d.fault {
		return exitFailure
	}
	return code
}

// begin is called once the relay listens.
func (d *demo) begin() {
	a := d.app
	d.relay = a.listeners[0].Addrs()[0].String()
	d.say("1  A web server listens on %s. It takes %s to answer.", d.site.Addr(), span(demoThink))
	d.say("2  A relay forwards to it, as this command would:   weir %s %s", port(a.listeners[0].Addrs()[0]), d.site.Addr())
	d.fetch = &fetch{demo: d, since: a.loop.Now()}
	a.loop.Connect("tcp", d.relay, d.fetch)
	if !d.stay {
		a.loop.After(demoLimit, func() {
			if !d.app.over {
				d.fail("nothing came back within " + span(demoLimit))
			}
		})
	}
}

func port(a net.Addr) string {
	_, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return p
}

func (d *demo) fail(what string) {
	d.fault = true
	d.app.rep.fail(slog.LevelError, &advice.Failure{Problem: "the demo failed: " + what})
	d.end()
}

// relayed is called when a connection through the relay is over.
func (d *demo) relayed(_ *session, r relay.Result) {
	if d.result == nil {
		d.result = &r
		d.tell()
	}
}

// tell reports what happened, once the relay and the client have both ended.
func (d *demo) tell() {
	if d.told || d.app.over || d.result == nil || !d.fetch.ended {
		return
	}
	d.told = true
	r := d.result
	if r.Why != nil {
		d.fail("the relay says: " + advice.Why(r.Why))
		return
	}
	if !d.fetch.complete() {
		d.fail(fmt.Sprintf("%d bytes of the reply arrived, and that is not all of it", len(d.fetch.reply)))
		return
	}
	status, _, _ := strings.Cut(string(d.fetch.reply), "\r\n")
	d.say("3  A client sent GET / through the relay and ended its writing at once.")
	d.say("4  The whole reply came back after %s: %s, %s. Half-close lost nothing,", span(d.fetch.took), strings.TrimPrefix(status, "HTTP/1.1 "), size(int64(len(d.fetch.reply))))
	d.say("   though the server thought for longer than socat would wait. Relayed: %s out, %s back.", size(r.Bytes[relay.A]), size(r.Bytes[relay.B]))
	d.say("")
	if !d.stay {
		d.say("Next: weir 8080 localhost:3000 forwards your port 8080 to your own server on 3000.")
		d.say("      weir help has the rest.")
		d.end()
		return
	}
	d.say("Next, in another terminal:   curl -i http://%s/", d.relay)
	d.say("      then, on your own:     weir 8080 localhost:3000")
	d.say("It runs until Ctrl-C.")
}

func (d *demo) end() {
	_ = d.site.Close() // always nil
	d.app.finish()
}

// fetch is the demo's client: it sends a request, ends its writing, and waits.
type fetch struct {
	demo  *demo
	since time.Time
	took  time.Duration
	reply []byte
	ended bool
}

var (
	_ weir.Protocol      = (*fetch)(nil)
	_ weir.EOFReceiver   = (*fetch)(nil)
	_ weir.ConnectFailer = (*fetch)(nil)
)

func (f *fetch) ConnectionMade(t weir.Transport) {
	if _, err := t.Write([]byte("GET / HTTP/1.1\r\nHost: " + f.demo.relay + "\r\nConnection: close\r\n\r\n")); err != nil {
		f.demo.fail(advice.Why(err))
		return
	}
	if err := t.WriteEOF(); err != nil {
		f.demo.fail(advice.Why(err))
	}
}

func (f *fetch) DataReceived(p []byte) (int, error) {
	f.reply = append(f.reply, p...)
	return len(p), nil
}

func (f *fetch) EOFReceived(int) (bool, error) {
	f.took = f.demo.app.loop.Now().Sub(f.since)
	return false, nil
}

func (f *fetch) ConnectionLost(err error) {
	f.ended = true
	if err != nil && !f.demo.app.over {
		f.demo.fail("the client lost its connection: " + advice.Why(err))
		return
	}
	f.demo.tell()
}

func (f *fetch) ConnectFailed(err *weir.ConnectError) {
	if !f.demo.app.over {
		f.demo.fail("the client cannot connect: " + advice.Why(err))
	}
}

func (f *fetch) complete() bool {
	return bytes.HasPrefix(f.reply, []byte("HTTP/1.1 200 OK\r\n")) && bytes.HasSuffix(f.reply, []byte(demoPage))
}

// site is the demo's web server: it answers the first request of a connection,
// after some thought, and closes.
type site struct {
	loop *weir.Loop
	t    weir.Transport
	head []byte
	busy bool
	lost bool
}

var (
	_ weir.Protocol    = (*site)(nil)
	_ weir.EOFReceiver = (*site)(nil)
)

// siteHead bounds a request's head, in bytes.
const siteHead = 16 << 10

func (s *site) ConnectionMade(t weir.Transport) { s.t = t }

func (s *site) DataReceived(p []byte) (int, error) {
	if s.busy {
		return len(p), nil
	}
	s.head = append(s.head, p...)
	switch {
	case bytes.Contains(s.head, []byte("\r\n\r\n")):
		s.busy = true
		s.loop.After(demoThink, s.answer)
	case len(s.head) > siteHead:
		s.reply("431 Request Header Fields Too Large", "The request's head is too long.\n")
	}
	return len(p), nil
}

func (s *site) answer() {
	method, rest, _ := strings.Cut(string(s.head), " ")
	path, _, _ := strings.Cut(rest, " ")
	switch {
	case method != "GET" && method != "HEAD":
		s.reply("405 Method Not Allowed", "GET only.\n")
	case path != "/":
		s.reply("404 Not Found", "There is one page here: /\n")
	case method == "HEAD":
		s.reply("200 OK", "")
	default:
		s.reply("200 OK", demoPage)
	}
}

func (s *site) reply(status, body string) {
	if s.lost {
		return
	}
	s.busy = true
	// A write fails only when the connection is lost, which ConnectionLost reports.
	_, _ = fmt.Fprintf(s.t, "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(body), body)
	_ = s.t.Close() // always nil
}

// EOFReceived implements weir.EOFReceiver: a client that has ended its writing
// still gets its reply.
func (s *site) EOFReceived(int) (bool, error) { return s.busy, nil }

func (s *site) ConnectionLost(error) { s.lost = true }
