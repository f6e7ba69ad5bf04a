// Package layertest has what the tests of layers share.
package layertest

import (
	"flag"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/race"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/weirtest"
)

// Ear is a protocol that records what it is told.
type Ear struct {
	Tr       weir.Transport
	Made     int
	Lost     int
	Err      error
	Failed   error // from ConnectFailed
	Got      []byte
	Sizes    []int // of each DataReceived
	Ends     int
	KeepOpen bool
	OnMade   func(t weir.Transport)
	OnData   func(p []byte) int // nil: everything is used
	OnEnd    func()
	OnLost   func()
}

var (
	_ weir.Protocol      = (*Ear)(nil)
	_ weir.EOFReceiver   = (*Ear)(nil)
	_ weir.ConnectFailer = (*Ear)(nil)
)

func (e *Ear) ConnectionMade(t weir.Transport) {
	e.Tr = t
	e.Made++
	if e.OnMade != nil {
		e.OnMade(t)
	}
}

func (e *Ear) DataReceived(p []byte) (int, error) {
	n := len(p)
	if e.OnData != nil {
		n = e.OnData(p)
	}
	e.Got = append(e.Got, p[:n]...)
	e.Sizes = append(e.Sizes, n)
	return n, nil
}

func (e *Ear) EOFReceived(int) (bool, error) {
	e.Ends++
	if e.OnEnd != nil {
		e.OnEnd()
	}
	return e.KeepOpen, nil
}

func (e *Ear) ConnectionLost(err error) {
	e.Lost++
	e.Err = err
	if e.OnLost != nil {
		e.OnLost()
	}
}

func (e *Ear) ConnectFailed(err *weir.ConnectError) { e.Failed = err }

// Over reports whether the ear will not be told anything more.
func (e *Ear) Over() bool { return e.Lost > 0 || e.Failed != nil }

// Keeper, in the simulator, sends what it has and keeps what it gets.
type Keeper struct {
	Sim    *weirtest.Sim
	T      weir.Transport
	Send   []byte
	Got    []byte
	Pieces []int
	At     time.Duration // when the last byte came
	EOF    time.Duration
	Lost   bool
	Err    error
	OnData func(*Keeper)
	OnEOF  func(*Keeper) bool
}

var (
	_ weir.Protocol    = (*Keeper)(nil)
	_ weir.EOFReceiver = (*Keeper)(nil)
)

func (k *Keeper) ConnectionMade(t weir.Transport) {
	k.T = t
	if len(k.Send) > 0 {
		_, _ = t.Write(k.Send)
	}
}

func (k *Keeper) DataReceived(p []byte) (int, error) {
	k.Got = append(k.Got, p...)
	k.Pieces = append(k.Pieces, len(p))
	k.At = k.Sim.Now()
	if k.OnData != nil {
		k.OnData(k)
	}
	return len(p), nil
}

func (k *Keeper) EOFReceived(int) (bool, error) {
	k.EOF = k.Sim.Now()
	return k.OnEOF != nil && k.OnEOF(k), nil
}

func (k *Keeper) ConnectionLost(err error) { k.Lost, k.Err = true, err }

// Plain is a layer that changes nothing.
func Plain(a layer.Above) layer.Above {
	return layer.Above{Failed: a.Failed, Make: func(weir.Transport) weir.Protocol {
		b := &layer.Base{}
		return b.Init(b, "plain", a)
	}}
}

// Everywhere runs the stream suite over each layer on every backend instead of
// on one, which takes a quarter of an hour.
var Everywhere = flag.Bool("everywhere", false, "run the stream suite over each layer on every backend")

// Suite runs the tests of what every stream promises over layers.
func Suite(t *testing.T, server, client []layer.Layer) {
	t.Helper()
	where := weirtest.OneBackend
	if race.Enabled {
		where = weirtest.Simulated // no layer but TLS has a goroutine that the plain one does not have
	}
	if *Everywhere {
		where = weirtest.Everywhere
	}
	SuiteIn(t, where, server, client)
}

// SuiteIn is Suite on the backends selected by where.
func SuiteIn(t *testing.T, where weirtest.Where, server, client []layer.Layer) {
	t.Helper()
	if !*Everywhere && where == weirtest.Everywhere {
		where = weirtest.OneBackend // CI forces each of them in turn
	}
	weirtest.TestLayers(t, where,
		func(f weir.Factory) weir.Factory { return layer.Server(f, server...) },
		func(p weir.Protocol) weir.Protocol { return layer.Client(p, client...) })
}

// Allocs returns how many allocations a message costs, through layers on both
// ends, once traffic is steady.
func Allocs(t *testing.T, backend string, server, client []layer.Layer) float64 {
	t.Helper()
	return weirtest.LayerAllocs(t, backend,
		func(f weir.Factory) weir.Factory { return layer.Server(f, server...) },
		func(p weir.Protocol) weir.Protocol { return layer.Client(p, client...) })
}
