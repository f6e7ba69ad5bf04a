package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/cmd/weir/internal/advice"
	"github.com/weir-io/weir/dns"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/packet"
	"github.com/weir-io/weir/layer/proxy"
	"github.com/weir-io/weir/relay"
	"github.com/weir-io/weir/sink"
)

// datagrams reports whether the plan relays datagrams.
func (p *plan) datagrams() bool {
	return p.a.Kind().Packets != nil && p.bs[0].Kind().Packets != nil
}

// checkDatagrams checks that datagrams meet datagrams: a stream does not keep
// message boundaries.
func (p *plan) checkDatagrams() error {
	all := append([]*endpoint.Endpoint{p.a}, p.bs...)
	n := 0
	for _, e := range all {
		if e.Kind().Name == "dns-listen" || e.Kind().Name == "resolver" {
			return p.checkNames()
		}
		if e.Kind().Packets == nil {
			continue
		}
		n++
	}
	switch {
	case n == 0:
		return nil
	case n != len(all):
		return &usageError{problem: "datagrams go to datagrams only: a stream does not keep message boundaries", hint: "weir udp-listen:5353 udp:9.9.9.9:53"}
	case len(p.bs) > 1 && slices.ContainsFunc(p.bs, func(e *endpoint.Endpoint) bool { return e.ThroughProxy() != p.bs[0].ThroughProxy() }):
		return &usageError{problem: "either all of several targets for datagrams go through a proxy, or none do"}
	case p.f.check > 0 && p.bs[0].ThroughProxy():
		return &usageError{problem: "--check cannot see through a proxy whether a target takes datagrams"}
	case p.a.Role() == p.bs[0].Role():
		return &usageError{problem: "datagrams need one side that listens and one that sends", hint: "weir udp-listen:5353 udp:9.9.9.9:53"}
	}
	return nil
}

// packetApp runs a plan that relays datagrams. It belongs to its loop's
// goroutine.
type packetApp struct {
	c      *command
	rep    *reporter
	f      flags
	loop   *weir.Loop
	env    *endpoint.Env
	names  *dns.Resolver
	from   *endpoint.Endpoint
	pick   *packetPicker
	relays []*relay.Packets
	open   int // of them
	notify *notifier
	began  time.Time
	code   int
	told   map[string]time.Time        // troubles, by their text
	small  map[*endpoint.Endpoint]bool // those whose receive buffer is said to be smaller
}

// packets runs a plan to its end and returns the exit code.
func (c *command) packets(p *plan, f flags) int {
	a := &packetApp{c: c, rep: newReporter(c, f), f: f, from: p.a, told: map[string]time.Time{}, small: map[*endpoint.Endpoint]bool{}}
	to := p.bs
	if p.a.Role() != endpoint.Listen {
		a.from, to = p.bs[0], []*endpoint.Endpoint{p.a}
	}
	a.names = dns.New(dns.WithStale(f.stale))
	l, err := weir.NewLoop(weir.WithLogger(a.rep.logger()), weir.WithResolver(a.names), weir.WithErrorHandler(func(err error) {
		a.rep.fail(slog.LevelWarn, &advice.Failure{Problem: advice.Why(err)})
	}))
	if err != nil {
		return a.fail("cannot start: " + advice.Why(err))
	}
	a.loop = l
	a.env = &endpoint.Env{
		Loop: l, Stdin: -1, Stdout: -1, Serves: true, Home: c.home, LookupEnv: c.lookupEnv,
		Note:    func(text string) { a.rep.line(dim, "note", text, "text", text) },
		Stderr:  c.sink,
		Opened:  func(s *sink.Sink) { c.opened = append(c.opened, s) },
		Trouble: a.rep.trouble,
		Warn:    func(text string) { a.rep.always(slog.LevelWarn, yellow, "note", text, nil, "text", text) },
		JSON:    a.rep.json != nil,
	}
	a.notify = newNotifier(l, c.lookupEnv)
	a.pick = newPacketPicker(a, to)
	code := a.run()
	if err := l.Close(); err != nil {
		return a.fail("while ending: " + advice.Why(err))
	}
	return code
}

func (a *packetApp) fail(problem string) int {
	a.rep.fail(slog.LevelError, &advice.Failure{Problem: problem})
	return exitFailure
}

func (a *packetApp) run() int {
	a.began = a.loop.Now()
	if err := hear(a.loop, a.stop, a.show); err != nil {
		a.rep.fail(slog.LevelWarn, &advice.Failure{Problem: advice.Why(err)})
	}
	for _, e := range a.ends() {
		err := e.Kind().PreparePackets(a.env, e.Base)
		if err == nil {
			_, err = e.MakePacketLayers(a.env)
		}
		if err != nil {
			a.rep.fail(slog.LevelError, advice.Prepare(e, err))
			return exitFailure
		}
	}
	a.loop.Soon(func() {
		a.listen()
		if a.c.started != nil {
			a.c.started()
		}
	})
	if err := a.loop.Run(); err != nil {
		return a.fail("the loop failed: " + advice.Why(err))
	}
	return a.code
}

// ends are the side that listens and the targets.
func (a *packetApp) ends() []*endpoint.Endpoint {
	return append([]*endpoint.Endpoint{a.from}, a.pick.to...)
}

// layered opens an endpoint with the layers of e, which are made already.
func (a *packetApp) layered(e *endpoint.Endpoint) relay.ListenPacketFunc {
	spec := e.Kind().Packets(e.Base)
	open := spec.Open
	return func(network, at string, p weir.PacketProtocol, opts ...weir.PacketOption) (*weir.PacketEndpoint, error) {
		layers, err := e.MakePacketLayers(nil)
		if err != nil {
			return nil, err
		}
		if open == nil {
			top, err := packet.Listen(a.loop, network, at, p, layers, slices.Concat(opts, spec.Options)...)
			if err == nil {
				a.tellBuffer(e, top, spec.ReceiveBuffer)
			}
			return top, err
		}
		return packet.Stack(a.loop, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
			return open(a.env, lowest)
		}, p, layers)
	}
}

// connected opens an endpoint with the layers of e, a target, that is connected to an address of
// it: such an endpoint hears of refusals on every backend.
func (a *packetApp) connected(e *endpoint.Endpoint, network, at string, p weir.PacketProtocol) (*weir.PacketEndpoint, error) {
	layers, err := e.MakePacketLayers(nil)
	if err != nil {
		return nil, err
	}
	opts := []weir.ConnectPacketOption{weir.WithBroadcast()}
	for _, o := range e.Kind().Packets(e.Base).Options {
		if o, ok := o.(weir.ConnectPacketOption); ok {
			opts = append(opts, o)
		}
	}
	return packet.Stack(a.loop, func(lowest weir.PacketProtocol) (*weir.PacketEndpoint, error) {
		return a.loop.ConnectPacket(network, at, lowest, opts...)
	}, p, layers)
}

// tellBuffer says, once for each of the command's endpoints, that the system keeps fewer
// bytes of datagrams than was asked for.
func (a *packetApp) tellBuffer(e *endpoint.Endpoint, top *weir.PacketEndpoint, asked int) {
	if asked == 0 || a.small[e] {
		return
	}
	if n, err := top.ReadBuffer(); err == nil && n < asked {
		a.small[e] = true
		a.env.Warn(fmt.Sprintf("%s: the receive buffer is %s instead of %s: the system allows no more (net.core.rmem_max on Linux)",
			e.Label(), size(int64(n)), size(int64(asked))))
	}
}

// layersEvery is how often it is said what layers have dropped.
const layersEvery = 10 * time.Second

// watchLayers has what layers drop be said while weir runs, where there are any.
func (a *packetApp) watchLayers() {
	if !slices.ContainsFunc(a.ends(), func(e *endpoint.Endpoint) bool { return len(e.PacketCounts()) > 0 }) {
		return
	}
	every := layersEvery
	if a.c.layersEvery > 0 {
		every = a.c.layersEvery
	}
	told := map[*packet.Counts]int64{}
	var timer *weir.Timer
	timer = a.loop.NewTimer(func() {
		a.tellLayers(func(c *packet.Counts) bool {
			n := c.Lost.Load() + c.Swallowed.Load() + c.Full.Load() + c.Refused.Load()
			more := n > told[c]
			told[c] = n
			return more
		})
		timer.Set(every)
	})
	timer.Set(every)
}

// tellLayers says what the layers did of which is says so.
func (a *packetApp) tellLayers(is func(*packet.Counts) bool) {
	for i, e := range a.ends() {
		for j, c := range e.PacketCounts() {
			if is(c) {
				name, side := e.Layers[j].Name.Text, [...]string{"a", "b"}[min(i, 1)]
				label := e.Base.Name.Text
				if len(a.pick.to) > 1 {
					label += ":" + e.Base.ArgText()
				}
				a.rep.line(dim, "layer", label+"+"+name+": "+c.String(), "side", side, "endpoint", e.Label(), "layer", name, "did", c.String())
			}
		}
	}
}

func (a *packetApp) end(code int) {
	a.code = code
	a.pick.stop()
	a.loop.Stop()
}

// listen opens the listening endpoints, and reports them.
func (a *packetApp) listen() {
	spec := a.from.Kind().Packets(a.from.Base)
	config, err := a.pick.config()
	if err != nil {
		a.end(a.fail(advice.Why(err)))
		return
	}
	config.Most = a.pick.to[0].FlowsMost() // all go through a proxy, or none
	config.Listen = a.layered(a.from)
	config.Began = func(peer weir.PacketAddr, target string) {
		a.rep.line(dim, "open", peer.String()+" -> "+target, "a", peer.String(), "b", target)
	}
	config.Ended = func(peer weir.PacketAddr, target string, c relay.PacketCount) {
		text := fmt.Sprintf("%s -> %s: %s out, %s back, ", peer, target, packetSize(c, relay.A), packetSize(c, relay.B))
		if c.Dropped() > 0 {
			text += dropped(c) + ", "
		}
		a.rep.line(dim, "closed", text+span(c.Took), append([]any{"a", peer.String(), "b", target}, packetFields(c)...)...)
	}
	config.Trouble, config.Full, config.Dropped, config.Lost = a.trouble, a.full, a.dropping, a.lost
	var names []string
	for i, at := range spec.Addresses {
		if i > 0 && len(a.relays) > 0 { // the port that the first one got
			host, _, _ := net.SplitHostPort(at)
			at = net.JoinHostPort(host, strconv.Itoa(int(a.relays[0].Local().IP.Port())))
		}
		r, err := relay.NewPackets(a.loop, spec.Network, at, config)
		absent := errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
		if err != nil && absent && (len(a.relays) > 0 || i+1 < len(spec.Addresses)) {
			continue // a machine without the family
		}
		if err != nil {
			a.rep.fail(slog.LevelError, advice.Listen(a.from, err))
			a.code = exitFailure
			a.stop()
			return
		}
		a.relays = append(a.relays, r)
		a.open++
		name := r.LocalAddr().String()
		if spec.Open != nil {
			name = a.from.Label() // it has no address
		}
		names = append(names, name)
	}
	for _, text := range config.Targets { // names are looked at when they are found
		if to, err := netip.ParseAddrPort(text); err == nil && config.Path == nil {
			if err := a.notOwn(to); err != nil {
				a.code = a.fail("cannot relay to " + text + ": " + advice.Why(err))
				a.stop()
				return
			}
		}
	}
	text := strings.Join(names, ", ")
	target := a.pick.label()
	a.notify.ready(text + " -> " + target)
	a.rep.line(green, "ready", text+" -> "+target,
		"a", text, "b", target, "listening", names, "backend", a.loop.Backend().Name)
	a.watchLayers()
}

// notOwn refuses the addresses that the relay itself listens on: what it sends
// there would come back, for ever.
func (a *packetApp) notOwn(to netip.AddrPort) error {
	var own []net.Addr
	for _, r := range a.relays {
		if at := r.Local().IP; at.IsValid() { // udp-replay has no address
			own = append(own, net.TCPAddrFromAddrPort(at))
		}
	}
	if l := proxy.Reached(to, own); l != nil {
		return &endpoint.SelfError{Listener: l}
	}
	return nil
}

// full says that there was no room for all flows, or datagrams.
func (a *packetApp) full(s relay.PacketShortage) {
	if s.Unread > 0 {
		a.rep.fail(slog.LevelWarn, &advice.Failure{
			Problem: "the system dropped " + advice.Count(s.Unread, "datagram") + " for a full receive buffer: more came than weir could take",
			Next:    "Have the system keep more with receive-buffer= on udp-listen and udp.",
		})
	}
	if s.Evicted+s.Refused == 0 {
		return
	}
	var what []string
	if s.Evicted > 0 {
		what = append(what, fmt.Sprintf("%d that were idle for longest ended to make room", s.Evicted))
	}
	if s.Refused > 0 {
		what = append(what, fmt.Sprintf("%d datagrams of new peers were dropped", s.Refused))
	}
	each := "a descriptor"
	if a.pick.to[0].ThroughProxy() {
		each = "two descriptors"
	}
	f := &advice.Failure{
		Problem: fmt.Sprintf("too many peers: there are %d; %s", s.Flows, strings.Join(what, ", ")),
		Next:    "Each takes " + each + ": raise the limit of open files (ulimit -n), or have them forgotten sooner with idle= on udp.",
	}
	a.rep.fail(slog.LevelWarn, f)
}

// dropping says how many datagrams were lost lately, for reasons that full does not tell. A
// refusal is news of the network, and trouble has told of the target's; the others are shown
// quiet or not.
func (a *packetApp) dropping(lost [2]relay.PacketLoss) {
	c := relay.PacketCount{Lost: lost}
	text := advice.Count(c.Dropped(), "datagram") + why(c)
	fields := append([]any{"dropped", c.Dropped()}, reasonFields(c)...)
	if lost[relay.A].Refused+lost[relay.B].Refused == c.Dropped() {
		a.rep.line(dim, "dropped", text, fields...)
		return
	}
	a.rep.always(slog.LevelWarn, yellow, "dropped", text, nil, fields...)
}

func packetSize(c relay.PacketCount, s relay.Side) string {
	return advice.Count(c.Packets[s], "datagram") + ", " + size(c.Bytes[s])
}

// reasons are why datagrams were dropped, both ways together: in words, for JSON, and how
// many.
func reasons(c relay.PacketCount) []reason {
	l := c.Lost[relay.A]
	l.Add(c.Lost[relay.B])
	return []reason{
		{"refused", "refused", l.Refused},
		{"no room", "no_room", l.NoRoom},
		{"too long", "too_long", l.TooLong},
		{"receive buffer full", "unread", l.Unread},
		{"no address known", "no_address", l.NoTarget},
		{"no descriptor", "no_descriptor", l.NoFlow},
		{"still waiting at the end", "ended", l.Ended},
		{"other failures", "failed", l.Failed},
	}
}

type reason struct {
	text, key string
	n         int64
}

// dropped says how many datagrams were dropped, and why.
func dropped(c relay.PacketCount) string {
	return fmt.Sprintf("%d dropped", c.Dropped()) + why(c)
}

// why has the reasons of what was dropped, in brackets after a blank, or "".
func why(c relay.PacketCount) string {
	var all []string
	for _, r := range reasons(c) {
		if r.n > 0 {
			all = append(all, fmt.Sprintf("%s %d", r.text, r.n))
		}
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, ", ") + ")"
}

// packetFields are the fields of a count in JSON.
func packetFields(c relay.PacketCount) []any {
	fields := []any{
		"packets_out", c.Packets[relay.A], "packets_back", c.Packets[relay.B],
		"bytes_out", c.Bytes[relay.A], "bytes_back", c.Bytes[relay.B], "dropped", c.Dropped(),
	}
	fields = append(fields, reasonFields(c)...)
	return append(fields, "seconds", c.Took.Seconds())
}

func reasonFields(c relay.PacketCount) (fields []any) {
	for _, r := range reasons(c) {
		if r.n > 0 {
			fields = append(fields, "dropped_"+r.key, r.n)
		}
	}
	return fields
}

// troubleEvery is how often the same trouble is reported.
const troubleEvery = 10 * time.Second

func (a *packetApp) trouble(err error, to weir.PacketAddr) {
	text := advice.Why(err)
	if to.IP.IsValid() {
		text = to.String() + ": " + text
	} else if e, ok := errors.AsType[*weir.ConnectError](err); ok { // only proxies are connected to
		text = "cannot connect to the proxy " + e.Address + ": " + text
	}
	now := a.loop.Now()
	if last, ok := a.told[text]; ok && now.Sub(last) < troubleEvery {
		return
	}
	if len(a.told) > 1000 {
		clear(a.told)
	}
	a.told[text] = now
	a.rep.fail(slog.LevelWarn, &advice.Failure{Problem: text})
}

// stop closes what is open; there is nothing under way to wait for.
func (a *packetApp) stop() {
	a.notify.stopping(0)
	if a.open == 0 {
		a.end(a.code)
		return
	}
	for _, r := range a.relays {
		r.Close()
	}
}

// show reports what is going on, on SIGQUIT.
func (a *packetApp) show() {
	peers, served := 0, 0
	for _, r := range a.relays {
		peers += r.Peers()
		served += r.Served()
	}
	a.rep.always(slog.LevelInfo, green, "serving", fmt.Sprintf("%s, %d since the start %s ago", advice.Count(int64(peers), "peer"), served, span(a.loop.Now().Sub(a.began))), nil,
		"peers", peers, "served", served)
}

// lost is called when one of the endpoints is gone.
func (a *packetApp) lost(err error) {
	if err != nil && a.code == exitOK {
		a.code = a.fail("cannot continue to listen: " + advice.Why(err))
		a.stop()
	}
	if a.open--; a.open > 0 {
		return
	}
	var c relay.PacketCount
	peers := 0
	for _, r := range a.relays {
		peers += r.Served()
		c.Add(r.Total())
	}
	a.tellLayers(func(c *packet.Counts) bool { return c.Seen.Load() > 0 })
	c.Took = a.loop.Now().Sub(a.began)
	a.rep.line(green, "done", fmt.Sprintf("%s, %s out, %s back, %s, %s", advice.Count(int64(peers), "peer"), packetSize(c, relay.A), packetSize(c, relay.B), dropped(c), span(c.Took)),
		append([]any{"peers", peers}, packetFields(c)...)...)
	a.end(a.code)
}
