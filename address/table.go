package address

import (
	"net"
	"slices"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
)

// Role says which end of a connection an endpoint is. Layers follow it: on a
// listener they are servers, elsewhere clients.
type Role uint8

// The roles.
const (
	Dial   Role = iota // makes connections
	Listen             // waits for them
	Open               // is there already: standard input, a descriptor; it can be used once
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

// Table is what endpoint strings may say. Parse looks everything up in it.
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

	// RoleOf says the role of a part where it depends on it; nil: it is Role.
	RoleOf func(p *Part) Role
	// Check finds what is wrong with a part beyond its single words; nil: none.
	Check func(p *Part) *Fault
	// Describe says what opening the part will do, in a few words. It opens
	// nothing.
	Describe func(p *Part) string

	// Prepare finds what is wrong where it leads before anything is opened, once;
	// nil: there is nothing to look at.
	Prepare func(env *Env, p *Part) error
	// Listen starts listening, for a part whose role is Listen. It makes one
	// or more listeners, all or none, with f as their factory.
	Listen func(env *Env, p *Part, f weir.Factory) ([]*weir.Listener, error)
	// Connect starts connecting proto, for the other roles. to is where the other
	// side asked to be connected to, "host:port", and empty where it did not ask.
	// It never calls back from inside; stop ends it early and may be called at any
	// time.
	Connect func(env *Env, p *Part, to string, proto weir.Protocol) (stop func())
	// Packets, of a kind that carries datagrams and no stream, says where; such a
	// kind has neither Listen nor Connect, and takes no layers.
	Packets func(p *Part) PacketSpec
}

// Layer is what can be put on top of a base.
type Layer struct {
	Name    string
	Roles   []Role // the roles of the base that it can stand on; none: all
	Summary string
	Doc     string
	Arg     Arg
	Options []OptionDoc
	Example string // an endpoint that uses it

	// Check is as for a Kind.
	Check func(p *Part, role Role) *Fault
	// Describe is as for a Kind.
	Describe func(p *Part, role Role) string
	// Prepare does once what all connections share, such as reading
	// certificates, and returns how to make the layer of each.
	Prepare func(env *Env, p *Part, role Role) (Prepared, error)
}

// Prepared makes the layer of a connection; asked is what it is made for, and
// empty on a listener.
type Prepared func(asked Asked) layer.Layer

// Asked is what a connection is made for, as far as the other side says.
type Asked struct {
	// To is where the other side asked to be connected to, "host:port", for a
	// proxy that is to be asked for the same; "" where it did not ask.
	To string
	// Source and Destination are the ends of the other side's own connection, for
	// those who are to be told; nil where there is none.
	Source, Destination net.Addr
}

// Always is Prepared for a layer that is the same whatever was asked for.
func Always(l layer.Layer) Prepared { return func(Asked) layer.Layer { return l } }

// Arg describes what stands after the colon.
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
	Conflicts []string // options that cannot stand beside it
	Required  bool
	Many      bool // it may stand more than once: see Part.Values
}

// Fault is what is wrong with a part, before it is known where the part stands.
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
		Kinds: []*Kind{
			tcpKind(), tcpListenKind(), unixKind(), unixListenKind(), udpKind(), udpListenKind(), dnsListenKind(), resolverKind(),
			stdioKind(), fdKind(), pipeKind(), replayKind(), dialKind(),
		},
		Layers: slices.Concat(tlsLayers(), proxyLayers(), wsLayers(), flowLayers(), faultLayers()),
	}
}
