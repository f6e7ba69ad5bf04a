package endpoint

import (
	"net"
	"slices"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/packet"
)

// Role says which end of a connection an endpoint is. Layers follow it: they
// are servers on a listener and clients elsewhere.
type Role uint8

// The roles.
const (
	Dial   Role = iota // makes connections
	Listen             // waits for them
	Open               // exists already: standard input, a descriptor; it can be used once
)

func (r Role) String() string {
	switch r {
	case Listen:
		return "listen"
	case Open:
		return "open"
	default:
		return "dial"
	}
}

// Server reports whether layers on an endpoint of this role are servers.
func (r Role) Server() bool { return r == Listen }

// Table holds what endpoint strings may contain. Parse looks everything up in
// it.
type Table struct {
	Kinds  []*Kind
	Layers []*Layer
}

// Kind is what the base of an endpoint can be.
type Kind struct {
	Name    string
	Role    Role
	Summary string // one line, no full stop
	Doc     string // more, for weir help NAME; may be empty
	Arg     Arg
	Options []OptionDoc
	Example string // a base with its options
	Command bool   // it runs the program that Endpoint.SetCommand gives it
	OnLoops bool   // its connections can be on several loops at once: see Endpoint.OnLoops

	// RoleOf returns the role of a part if it depends on the part; nil: it is
	// Role.
	RoleOf func(p *Part) Role
	// Check finds what is wrong with a part beyond its single words; nil: there
	// is nothing to check.
	Check func(p *Part) *Fault
	// Describe says what opening the part will do, in a few words. It opens
	// nothing.
	Describe func(p *Part) string

	// Prepare finds, once and before anything is opened, what is wrong with the
	// target; nil: there is nothing to check.
	Prepare func(env *Env, p *Part) error
	// Listen starts listening, for a part whose role is Listen. It makes one
	// or more listeners, all or none, with f as their factory.
	Listen func(env *Env, p *Part, f weir.Factory) ([]Listener, error)
	// Connect starts connecting proto, for the other roles. to is where the
	// other side asked to be connected to, "host:port", or empty if it did not
	// ask. Connect never calls back before it returns; stop ends it early and
	// may be called at any time.
	Connect func(env *Env, p *Part, to string, proto weir.Protocol) (stop func())
	// Packets, for a kind that carries datagrams instead of a stream, says
	// where they go; such a kind has neither Listen nor Connect, and takes the
	// layers that have Packets.
	Packets func(p *Part) PacketSpec
}

// Listener is what a kind listens with: a *weir.Listener, for one. Its methods belong to
// the loop's goroutine.
type Listener interface {
	Addr() net.Addr  // where it listens
	Conns() int      // how many of its connections are open
	Close() error    // accepts no more; connections stay
	OnDone(f func()) // f is called from the loop's queue once it is closed and they are gone
}

// Layer is what can be put on top of a base.
type Layer struct {
	Name    string
	Roles   []Role // the roles of the bases that it can be put on; none: all
	Summary string
	Doc     string
	Arg     Arg
	Options []OptionDoc
	Example string // an endpoint that uses it

	// Check is as for a Kind.
	Check func(p *Part, role Role) *Fault
	// Describe is as for a Kind.
	Describe func(p *Part, role Role) string
	// Prepare does once the work that all connections share, such as reading
	// certificates, and returns how to make the layer of each.
	// nil: the layer is for datagrams only.
	Prepare func(env *Env, p *Part, role Role) (Prepared, error)
	// Packets makes the layer for datagrams, which counts what it drops in c; nil: the
	// layer is for streams only.
	Packets func(env *Env, p *Part, role Role, c *packet.Counts) (packet.Layer, error)
	// PacketIdle, for a layer without Packets, is how long a peer of an endpoint for
	// datagrams is remembered when nothing passes: see PacketIdle.
	PacketIdle func(p *Part) time.Duration
	// PacketWay says that the layer, with an argument, takes the datagrams of an endpoint
	// that sends to that argument: see Endpoint.ThroughProxy. It stands first there, and
	// layers for the datagrams after it.
	PacketWay bool
	// DescribePackets is Describe on datagrams; nil: it is Describe.
	DescribePackets func(p *Part, role Role) string
}

// Prepared makes the layer of a connection; asked says what the connection is
// made for, and is empty on a listener.
type Prepared func(asked Asked) layer.Layer

// Asked says what a connection is made for, as far as the other side tells.
type Asked struct {
	// To is where the other side asked to be connected to, "host:port", for a
	// proxy that is to be asked for the same; "" if it did not ask.
	To string
	// Source and Destination are the ends of the other side's own connection,
	// for layers that pass them on; nil if there is none.
	Source, Destination net.Addr
}

// Always returns a Prepared for a layer that is the same whatever was asked
// for.
func Always(l layer.Layer) Prepared { return func(Asked) layer.Layer { return l } }

// Arg describes what comes after the colon.
type Arg struct {
	Name     string // for help: "host:port"; "": the part takes none
	Type     *Type
	Optional bool
}

// OptionDoc describes an option.
type OptionDoc struct {
	Name      string
	Type      *Type
	Doc       string   // one line
	Conflicts []string // options that cannot be combined with it
	Required  bool
	Many      bool // it may be given more than once: see Part.Values
	// Bare reports whether a word without a value is meant as this option's value, as
	// 115200 is for speed=115200; nil: none is.
	Bare func(word string) bool
	Only Carries // what the option is for, where it is not for both
}

// Fault is what is wrong with a part, before the part's position is known.
type Fault struct {
	Token    *Token // the wrong word; nil: the whole part
	From, To int    // the wrong bytes of Token.Text; 0, 0: all
	Problem  string
	Hint     string
}

// Kind finds a kind by name, or nil.
func (t *Table) Kind(name string) *Kind {
	i := slices.IndexFunc(t.Kinds, func(k *Kind) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return t.Kinds[i]
}

// Layer finds a layer by name, or nil.
func (t *Table) Layer(name string) *Layer {
	i := slices.IndexFunc(t.Layers, func(l *Layer) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return t.Layers[i]
}

// KindNames lists the kinds in the table's order.
func (t *Table) KindNames() []string {
	var names []string
	for _, k := range t.Kinds {
		names = append(names, k.Name)
	}
	return names
}

// LayerNames lists the layers in the table's order.
func (t *Table) LayerNames() []string {
	var names []string
	for _, l := range t.Layers {
		names = append(names, l.Name)
	}
	return names
}

// Default returns a new table of everything this package knows.
func Default() *Table {
	return &Table{
		Kinds: append([]*Kind{
			tcpKind(), tcpListenKind(), unixKind(), unixListenKind(), udpKind(), udpListenKind(), udpReplayKind(), utpKind(), utpListenKind(),
			dnsListenKind(), resolverKind(), stdioKind(), fdKind(), pipeKind(), fileKind(), execKind(), ptyKind(), serialKind(),
			sctpKind(), sctpListenKind(), vsockKind(), vsockListenKind(), rfcommKind(), rfcommListenKind(), replayKind(), dialKind(),
		}, endKinds()...),
		Layers: slices.Concat(tlsLayers(), proxyLayers(), wsLayers(), flowLayers(), faultLayers(), packetLayers()),
	}
}
