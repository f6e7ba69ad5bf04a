package repo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/weir-io/weir"
)

// optionCalls are the functions of package weir that take options, and a name for all
// that take the same.
var optionCalls = map[string]struct {
	takes string
	f     any
}{
	"Loop.Listen":    {"listen", (*weir.Loop).Listen},
	"Group.Listen":   {"listen", (*weir.Group).Listen},
	"ListenAndServe": {"listen", weir.ListenAndServe},
	"Loop.ListenFD":  {"fd", (*weir.Loop).ListenFD},
	"Loop.Connect":   {"connect", (*weir.Loop).Connect},
	"Loop.Redial":    {"connect", (*weir.Loop).Redial},

	"Loop.ConnectFuture":        {"connect", (*weir.Loop).ConnectFuture},
	"Loop.ConnectFutureThrough": {"connect", (*weir.Loop).ConnectFutureThrough},
	"Loop.ListenPacket":         {"packet", (*weir.Loop).ListenPacket},
	"Loop.ConnectPacket":        {"peer", (*weir.Loop).ConnectPacket},
	"Loop.Attach":               {"stream", (*weir.Loop).Attach},
	"Loop.SocketPair":           {"stream", (*weir.Loop).SocketPair},
	"Loop.Pipe":                 {"stream", (*weir.Loop).Pipe},
	"Loop.Carry":                {"stream", (*weir.Loop).Carry},
	"Loop.AttachPair":           {"pair", (*weir.Loop).AttachPair},
	"Loop.CarryPackets":         {"carry", (*weir.Loop).CarryPackets},
}

// optionsFit says in which calls each option has an effect.
var optionsFit = map[string]struct {
	f    any
	fits string
}{
	"WithWriteMarks":      {weir.WithWriteMarks, "listen fd connect packet stream pair carry peer"},
	"WithTenant":          {weir.WithTenant, "listen fd connect packet stream pair carry peer"},
	"WithTailLimit":       {weir.WithTailLimit, "listen fd connect stream pair"},
	"WithSeparateEnds":    {weir.WithSeparateEnds, "pair"},
	"WithAdmission":       {weir.WithAdmission, "listen fd"},
	"WithGroup":           {weir.WithGroup, "listen fd"},
	"WithBacklog":         {weir.WithBacklog, "listen"},
	"WithMode":            {weir.WithMode, "listen packet"},
	"WithReusePort":       {weir.WithReusePort, "listen packet peer"},
	"WithSocketBuffers":   {weir.WithSocketBuffers, "listen connect packet peer"},
	"WithDevice":          {weir.WithDevice, "listen connect packet peer"},
	"WithNagle":           {weir.WithNagle, "listen connect"},
	"WithKeepAlive":       {weir.WithKeepAlive, "listen connect"},
	"WithUserTimeout":     {weir.WithUserTimeout, "listen connect"},
	"WithDSCP":            {weir.WithDSCP, "listen connect"},
	"WithMark":            {weir.WithMark, "listen connect"},
	"WithFastOpen":        {weir.WithFastOpen, "listen connect"},
	"WithMultipath":       {weir.WithMultipath, "listen connect"},
	"WithSCTPAddrs":       {weir.WithSCTPAddrs, "listen connect"},
	"WithSCTPPeers":       {weir.WithSCTPPeers, "connect"},
	"WithSCTPStreams":     {weir.WithSCTPStreams, "listen connect"},
	"WithLocalAddr":       {weir.WithLocalAddr, "connect peer"},
	"WithTimeout":         {weir.WithTimeout, "connect"},
	"WithConnectTimeout":  {weir.WithConnectTimeout, "connect"},
	"WithNameTimeout":     {weir.WithNameTimeout, "connect"},
	"WithDescriptorWait":  {weir.WithDescriptorWait, "connect"},
	"WithConnectResolver": {weir.WithConnectResolver, "connect"},
	"WithSequential":      {weir.WithSequential, "connect"},
	"WithAddrFilter":      {weir.WithAddrFilter, "connect"},
	"WithRaceDelay":       {weir.WithRaceDelay, "connect"},
	"WithReuseAddr":       {weir.WithReuseAddr, "packet peer"},
	"WithDontFragment":    {weir.WithDontFragment, "packet peer"},
	"WithBroadcast":       {weir.WithBroadcast, "packet peer"},
	"WithGroups":          {weir.WithGroups, "packet"},
	"WithMulticastDevice": {weir.WithMulticastDevice, "packet peer"},
	"WithMulticastHops":   {weir.WithMulticastHops, "packet peer"},
	"WithMulticastLoop":   {weir.WithMulticastLoop, "packet peer"},
	"WithPacketTimes":     {weir.WithPacketTimes, "packet peer"},
	"WithMaxDatagram":     {weir.WithMaxDatagram, "packet carry peer"},
	"WithBackend":         {weir.WithBackend, ""},
	"WithBackendName":     {weir.WithBackendName, ""},
	"WithDebug":           {weir.WithDebug, ""},
	"WithErrorHandler":    {weir.WithErrorHandler, ""},
	"WithBudget":          {weir.WithBudget, ""},
	"WithFlushTime":       {weir.WithFlushTime, ""},
	"WithLogger":          {weir.WithLogger, ""},
	"WithResolver":        {weir.WithResolver, ""},
}

// TestOptionKinds: a call compiles with the options that have an effect in it, and with
// no others. Reflection knows the compiler's rule of what may be passed for what.
func TestOptionKinds(t *testing.T) {
	for option, o := range optionsFit {
		result := reflect.TypeOf(o.f).Out(0)
		for call, c := range optionCalls {
			f := reflect.TypeOf(c.f)
			if !f.IsVariadic() {
				t.Errorf("%s takes no options", call)
				continue
			}
			fits := slices.Contains(strings.Fields(o.fits), c.takes)
			if got := result.AssignableTo(f.In(f.NumIn() - 1).Elem()); got != fits {
				t.Errorf("%s with %s: compiles is %v, want %v", call, option, got, fits)
			}
		}
	}
}

// TestOptionTables: the tables above leave out no option, and no call that takes some.
func TestOptionTables(t *testing.T) {
	var options, calls []string
	files, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !fn.Name.IsExported() || fn.Type.TypeParams != nil {
				continue
			}
			name := fn.Name.Name
			if fn.Recv == nil && strings.HasPrefix(name, "With") {
				options = append(options, name)
			}
			params := fn.Type.Params.List
			if len(params) == 0 {
				continue
			}
			rest, ok := params[len(params)-1].Type.(*ast.Ellipsis)
			if !ok {
				continue
			}
			elem, ok := rest.Elt.(*ast.Ident)
			if !ok || !strings.HasSuffix(elem.Name, "Option") || elem.Name == "LoopOption" {
				continue
			}
			if fn.Recv != nil {
				name = fn.Recv.List[0].Type.(*ast.StarExpr).X.(*ast.Ident).Name + "." + name
			}
			calls = append(calls, name)
		}
	}
	slices.Sort(options)
	slices.Sort(calls)
	if want := slices.Sorted(maps.Keys(optionsFit)); !slices.Equal(options, want) {
		t.Errorf("options %v, in the table %v", options, want)
	}
	if want := slices.Sorted(maps.Keys(optionCalls)); !slices.Equal(calls, want) {
		t.Errorf("calls %v, in the table %v", calls, want)
	}
}
