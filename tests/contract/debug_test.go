package contract

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/future"
	"github.com/weir-io/weir/task"
)

// guarded lists the methods of package weir that check which goroutine calls
// them, such as "stream.Close": the type, and the name that is reported.
func guarded(t *testing.T) map[string]bool {
	t.Helper()
	names, err := filepath.Glob("../../*.go")
	if err != nil {
		t.Fatal(err)
	}
	var methods []*ast.FuncDecl
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if m, ok := d.(*ast.FuncDecl); ok && m.Recv != nil {
				methods = append(methods, m)
			}
		}
	}
	// What checks the name that it is given: Loop.check, and methods that hand theirs on.
	checks := map[string]bool{"check": true, "writable": true}
	for _, m := range methods {
		if p := m.Type.Params.List; len(p) > 0 && len(p[0].Names) > 0 && p[0].Names[0].Name == "method" {
			checks[m.Name.Name] = true
		}
	}
	all := map[string]bool{}
	for _, m := range methods {
		ast.Inspect(m, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			lit, isLit := call.Args[0].(*ast.BasicLit)
			if ok && isLit && lit.Kind == token.STRING && checks[sel.Sel.Name] {
				name, _ := strconv.Unquote(lit.Value)
				recv := m.Recv.List[0].Type
				if p, ok := recv.(*ast.StarExpr); ok {
					recv = p.X
				}
				all[recv.(*ast.Ident).Name+"."+strings.TrimPrefix(name, "Timer.")] = true
			}
			return true
		})
	}
	if len(all) < 40 {
		t.Fatalf("%d methods are guarded: the way to find them is wrong", len(all))
	}
	return all
}

// TestWrongGoroutine calls every guarded method from another goroutine, in debug
// mode: each is reported by its own name, with both
// goroutines (behaviour 17).
func TestWrongGoroutine(t *testing.T) {
	var told bytes.Buffer
	l, err := weir.NewLoop(weir.WithDebug(time.Hour), weir.WithLogger(slog.New(slog.NewTextHandler(&told, nil))))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var server, client weir.Transport
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
		server = tr
		return weir.DataFunc(func(p []byte) (int, error) { return len(p), nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	up := &maker{made: func(tr weir.Transport) { client = tr }}
	conn := l.Connect("tcp", ln.Addr().String(), up)
	pk, err := l.ListenPacket("udp", "127.0.0.1:0", weir.PacketFunc(func(*weir.PacketEndpoint, []byte, weir.PacketAddr) {}).Protocol())
	if err != nil {
		t.Fatal(err)
	}
	turns(t, l, "a connection", func() bool { return server != nil && client != nil })
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	tm := l.NewTimer(func() {})
	factory := func(weir.Transport) weir.Protocol { return nil }
	handler, err := l.Signal(syscall.SIGTERM, func(os.Signal) {})
	if err != nil {
		t.Fatal(err)
	}
	defer handler.Remove()
	source := idleSource{}
	if err := l.AddSource(source); err != nil {
		t.Fatal(err)
	}
	tn := l.NewTenant("one")
	defer tn.Close(nil)
	calls := map[string]func(){
		"Loop.NewTenant":               func() { l.NewTenant("x") },
		"Tenant.NewTenant":             func() { tn.NewTenant("x") },
		"Tenant.Adopt":                 func() { _ = tn.Adopt(client) },
		"Tenant.OnClose":               func() { tn.OnClose(func(error) { t.Error("called") }) },
		"Tenant.SetLimits":             func() { _ = tn.SetLimits(weir.TenantLimits{Connections: 1}) },
		"Tenant.SetShare":              func() { _ = tn.SetShare(2) },
		"Tenant.Close":                 func() { tn.Close(nil) },
		"stream.Write":                 func() { _, _ = client.Write([]byte("x")) },
		"stream.Forward":               func() { _, _ = client.(weir.Forwarder).Forward([]byte("x")) },
		"stream.Writev":                func() { _, _ = client.Writev([][]byte{[]byte("x")}) },
		"stream.SetProtocol":           func() { client.SetProtocol(up) },
		"stream.Abort":                 func() { client.Abort() },
		"stream.Close":                 func() { _ = client.Close() },
		"stream.Reset":                 func() { client.(weir.Resetter).Reset() },
		"stream.PauseReading":          func() { client.PauseReading() },
		"stream.ResumeReading":         func() { client.ResumeReading() },
		"stream.SetWriteMarks":         func() { _ = client.SetWriteMarks(2, 1) },
		"stream.Room":                  func() { client.Room() },
		"stream.SetIdleTimeout":        func() { _ = client.(weir.IdleTimer).SetIdleTimeout(weir.DirectionRead, time.Hour) },
		"stream.SetNoDelay":            func() { _ = client.(weir.Tuner).SetNoDelay(true) },
		"stream.SetKeepAlive":          func() { _ = client.(weir.Tuner).SetKeepAlive(time.Minute) },
		"stream.SetUserTimeout":        func() { _ = client.(weir.Tuner).SetUserTimeout(time.Minute) },
		"stream.SetDSCP":               func() { _ = client.(weir.Tuner).SetDSCP(0) },
		"stream.SetSocketBuffers":      func() { _ = client.(weir.Tuner).SetSocketBuffers(1<<16, 0) },
		"stream.SocketBuffers":         func() { _, _, _ = client.(weir.Tuner).SocketBuffers() },
		"stream.TCPInfo":               func() { _, _ = client.(weir.Tuner).TCPInfo() },
		"stream.SpliceTo":              func() { _ = client.(weir.Splicer).SpliceTo(server, func(int64, error) {}) },
		"stream.Unread":                func() { client.(weir.Unreader).Unread([]byte("x")) },
		"stream.WriteEOF":              func() { _ = client.WriteEOF() },
		"stream.WriteDescriptors":      func() { _, _ = client.(weir.DescriptorWriter).WriteDescriptors([]byte("x"), 0) },
		"stream.Detach":                func() { _, _ = client.(weir.Detacher).Detach() },
		"stream.PeerCredentials":       func() { _, _ = client.(weir.Peered).PeerCredentials() },
		"stream.PeerGroups":            func() { _, _ = client.(weir.Peered).PeerGroups() },
		"stream.RegisterProducer":      func() { _ = client.RegisterProducer(nil) },
		"stream.UnregisterProducer":    func() { client.UnregisterProducer() },
		"Listener.Pause":               func() { ln.Pause() },
		"Listener.Resume":              func() { ln.Resume() },
		"Listener.OnDone":              func() { ln.OnDone(func() {}) },
		"Listener.OnClosed":            func() { ln.OnClosed(func() {}) },
		"Listener.Each":                func() { ln.Each(func(weir.Transport) {}) },
		"Listener.Shutdown":            func() { ln.Shutdown(0, func(error) {}) },
		"Listener.Close":               func() { _ = ln.Close() },
		"Listener.Abort":               func() { ln.Abort() },
		"Loop.ListenAddrs":             func() { _ = l.ListenAddrs() },
		"Loop.Listen":                  func() { _, _ = l.Listen("tcp", "127.0.0.1:0", factory) },
		"Loop.ListenFD":                func() { _, _ = l.ListenFD(int(r.Fd()), factory) },
		"Loop.ListenPacket":            func() { _, _ = l.ListenPacket("udp", "127.0.0.1:0", nil) },
		"Loop.ConnectPacket":           func() { _, _ = l.ConnectPacket("udp", "127.0.0.1:9", nil) },
		"Loop.Attach":                  func() { _, _ = l.AttachPair(int(r.Fd()), int(w.Fd()), "pipe", factory) },
		"Loop.Connect":                 func() { l.Connect("tcp", ln.Addr().String(), up) },
		"Loop.Soon":                    func() { l.Soon(func() {}) },
		"Loop.Carry":                   func() { _, _ = l.Carry(nil) },
		"Loop.CarryPackets":            func() { _, _ = l.CarryPackets(nil, nil) },
		"Loop.Guest":                   func() { _, _ = l.Guest(func(func()) {}) },
		"Loop.NewWaiter":               func() { _, _ = l.NewWaiter() },
		"Loop.SetTurnLimit":            func() { _ = l.SetTurnLimit(weir.TurnLimit{}) },
		"Loop.ConnectFuture":           func() { l.ConnectFuture(future.On(l), "tcp", ln.Addr().String(), up) },
		"Loop.Signal":                  func() { _, _ = l.Signal(syscall.SIGTERM, func(os.Signal) {}) },
		"Loop.AddSource":               func() { _ = l.AddSource(idleSource{}) },
		"Loop.RemoveSource":            func() { _ = l.RemoveSource(source) },
		"Loop.Watch":                   func() { _, _ = l.Watch(int(r.Fd()), 1, func(weir.Events) {}) },
		"Connector.Stop":               func() { conn.Stop() },
		"SignalHandler.Remove":         func() { handler.Remove() },
		"PacketEndpoint.JoinGroup":     func() { _ = pk.JoinGroup(netip.MustParseAddr("239.1.1.1"), "") },
		"PacketEndpoint.JoinSource":    func() { _ = pk.JoinSource(netip.MustParseAddr("232.1.1.1"), netip.MustParseAddr("127.0.0.1"), "") },
		"PacketEndpoint.LeaveGroup":    func() { _ = pk.LeaveGroup(netip.MustParseAddr("239.1.1.1"), "") },
		"PacketEndpoint.LeaveSource":   func() { _ = pk.LeaveSource(netip.MustParseAddr("232.1.1.1"), netip.MustParseAddr("127.0.0.1"), "") },
		"PacketEndpoint.SendInfo":      func() { _ = pk.SendInfo([]byte("x"), pk.Local(), &weir.PacketInfo{}) },
		"PacketEndpoint.Send":          func() { _ = pk.Send([]byte("x")) },
		"PacketEndpoint.SendTo":        func() { _ = pk.SendTo([]byte("x"), pk.Local()) },
		"PacketEndpoint.ReadBuffer":    func() { _, _ = pk.ReadBuffer() },
		"PacketEndpoint.PauseReading":  func() { pk.PauseReading() },
		"PacketEndpoint.ResumeReading": func() { pk.ResumeReading() },
		"PacketEndpoint.Close":         func() { _ = pk.Close() },
		"PacketEndpoint.Abort":         func() { pk.Abort() },
		"Tenant.SetBudget":             func() { _ = tn.SetBudget(nil) },
		"Timer.Set":                    func() { tm.Set(time.Hour) },
		"Timer.SetAt":                  func() { tm.SetAt(time.Now()) },
		"Timer.Repeat":                 func() { tm.Repeat(time.Hour) },
		"Timer.Again":                  func() { tm.Again() },
		"Timer.Stop":                   func() { tm.Stop() },
	}
	// A system without descriptors has no watches.
	if watch, err := l.Watch(int(r.Fd()), 1, func(weir.Events) {}); err == nil {
		defer watch.Remove()
		calls["Watch.Remove"] = func() { watch.Remove() }
		calls["Watch.SetEvents"] = func() { watch.SetEvents(weir.EventWrite) }
		calls["Watch.Stop"] = func() { watch.Stop() }
		calls["Watch.Start"] = func() { watch.Start() }
	}
	all := guarded(t)
	for name := range all {
		if calls[name] == nil && !strings.HasPrefix(name, "Watch.") {
			t.Errorf("this test does not call %s, which is guarded", name)
		}
	}
	for name := range calls {
		if !all[name] {
			t.Errorf("%s is not guarded", name)
		}
	}
	// The loop runs on this goroutine and calls fn, which lets another goroutine try.
	l.Soon(func() {
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			told.Reset()
			done := make(chan struct{})
			go func() {
				defer close(done)
				calls[name]()
			}()
			<-done
			kind, says, _ := strings.Cut(name, ".")
			if kind == "Timer" {
				says = name
			}
			if got := told.String(); !strings.Contains(got, "weir: "+says+" called from goroutine ") || !strings.Contains(got, "the loop's, goroutine ") {
				t.Errorf("%s from another goroutine: %q", name, got)
			}
		}
		l.Stop()
	})
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	client.Abort()
	_ = pk.Close()
	_ = ln.Close()
}

// idleSource is a source without events.
type idleSource struct{}

func (idleSource) Attach(func()) error { return nil }
func (idleSource) Dispatch()           {}
func (idleSource) Detach()             {}

type maker struct {
	weir.NopProtocol
	made func(weir.Transport)
}

func (m *maker) ConnectionMade(t weir.Transport)  { m.made(t) }
func (m *maker) ConnectFailed(*weir.ConnectError) {}

// slowProtocol takes its time over bytes.
type slowProtocol struct{ maker }

// TestSlowNames: a slow callback is reported with what ran, whatever calls it, so that
// it can be found (R62).
func TestSlowNames(t *testing.T) {
	var reported []*weir.SlowError
	l, err := weir.NewLoop(weir.WithDebug(time.Nanosecond), quiet(), weir.WithErrorHandler(func(err error) {
		slow, ok := errors.AsType[*weir.SlowError](err)
		if !ok || strings.Contains(slow.What, "*weir.") {
			t.Errorf("the report says nothing to a user: %v", err)
			return
		}
		reported = append(reported, slow)
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var ends []weir.Transport
	ln, err := l.Listen("tcp", "127.0.0.1:0", func(tr weir.Transport) weir.Protocol {
		return &slowProtocol{maker{made: func(weir.Transport) { ends = append(ends, tr) }}}
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Connect("tcp", ln.Addr().String(), &slowCaller{maker{made: func(tr weir.Transport) {
		ends = append(ends, tr)
		_, _ = tr.Write([]byte("x"))
	}}})
	pk, err := l.ListenPacket("udp", "127.0.0.1:0", &slowPackets{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pk.SendTo([]byte("x"), pk.Local()); err != nil {
		t.Fatal(err)
	}
	l.After(0, namedTimer)
	if _, err := l.Post(namedCallback); err != nil {
		t.Fatal(err)
	}
	s := future.On(l)
	root := task.New(s)
	root.Go("counting", func(*task.Task) error { return nil })
	wants := []string{
		"callback of *contract.slowProtocol on tcp 127.0.0.1:",
		"callback of *contract.slowPackets on udp " + pk.LocalAddr().String(),
		"timer github.com/weir-io/weir/tests/contract.namedTimer",
		"callback github.com/weir-io/weir/tests/contract.namedCallback",
		"accepting on " + ln.Addr().String(),
		", in which task counting ran",
		"connecting *contract.slowCaller to tcp " + ln.Addr().String(),
	}
	if r, w, err := os.Pipe(); err != nil {
		t.Fatal(err)
	} else if watch, err := l.Watch(int(r.Fd()), 1, func(weir.Events) {}); err == nil { // a system without descriptors has no watches
		wants = append(wants, fmt.Sprint("watch of descriptor ", r.Fd()))
		// No one reads it: Fd has made the pipe block, and a watch may call once too often.
		if _, err := w.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		defer func() { watch.Remove(); _ = r.Close(); _ = w.Close() }()
	}
	said := func(what string) bool {
		return slices.ContainsFunc(reported, func(e *weir.SlowError) bool {
			return strings.Contains(e.What, what) && strings.Contains(e.Error(), e.What) && e.Took > 0
		})
	}
	missing := slices.Clone(wants)
	for deadline := time.Now().Add(patience); len(missing) > 0 && !t.Failed() && time.Now().Before(deadline); {
		if err := l.Turn(time.Second); err != nil {
			t.Fatal(err)
		}
		missing = slices.DeleteFunc(missing, said)
	}
	if len(missing) > 0 {
		t.Errorf("no report says %q; there were\n%v", missing, reported)
	}
	for _, tr := range ends {
		tr.Abort()
	}
	if err := errors.Join(root.Close(), s.Close(), pk.Close(), ln.Close()); err != nil {
		t.Fatal(err)
	}
}

// slowCaller takes its time over its connection.
type slowCaller struct{ maker }

// slowPackets takes its time over datagrams.
type slowPackets struct{}

func (*slowPackets) EndpointMade(*weir.PacketEndpoint)      {}
func (*slowPackets) PacketReceived([]byte, weir.PacketAddr) {}
func (*slowPackets) EndpointLost(error)                     {}

func namedTimer()    {}
func namedCallback() {}
