package endpoint

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/internal/files"
	"github.com/weir-io/weir/layer"
)

// The bounds on what a listener accepts if its options do not set them. A
// relayed connection takes two descriptors, its own and that of the connection
// to the other side.
const (
	descriptorsKept = 64 // for the loop, names, files and the listeners themselves
	descriptorsLoop = 4  // for each further loop
	defaultShare    = 15 // see layer.LimitConfig.Share

	// placeWait is how long a client waits while all places are taken. On a
	// UNIX socket no client waits: there all clients are one peer, and if two
	// relays led to each other, each would go on filling the places that become
	// free in the other.
	placeWait = 30 * time.Second
	// peerWait is how long a client waits whose address already has its share.
	// Meanwhile it holds up others.
	peerWait = 2 * time.Second
	// descriptorWait is how long a connect waits for a descriptor.
	descriptorWait = 10 * time.Second
)

// boundDocs returns the options of a listener that bound its connections.
func boundDocs() []OptionDoc {
	return []OptionDoc{
		{Name: "connections", Type: Bound, Doc: "how many at once; the default follows from the limit of open files"},
		{Name: "per-address", Type: Bound, Doc: "how many at once from one address; the default is 15 times the places left"},
		{Name: "allow", Type: networkType, Many: true, Doc: "accept only clients in this network, or another one that is given; the default is any"},
		{Name: "deny", Type: networkType, Many: true, Doc: "refuse clients in this network, even if allow has it"},
	}
}

// boundsDoc explains them.
const boundsDoc = "\nEach connection counts as two descriptors of the limit of open files (ulimit -n). When\n" +
	"none are left, new connections wait in the system's queue until one ends; on a UNIX\n" +
	"socket they are reset. One address never gets the last places: its new connections wait\n" +
	"up to 2 s, then are reset. Connections beyond connections= or per-address= are reset at\n" +
	"once. weir warns every 10 s. An IPv6 address counts together with the rest of its /64.\n" +
	"If all connections come from one proxy, and it needs the last sixteenth too, write\n" +
	"per-address=none. allow= and deny= look at the address that connects, an IPv4 address\n" +
	"inside an IPv6 one (::ffff:10.0.0.1) as IPv4, and not at what a PROXY header says."

// bound reads one of the options; 0 means no bound.
func bound(p *Part, name string, otherwise int) int {
	switch p.Value(name) {
	case "":
		return otherwise
	case "none":
		return 0
	}
	return int(p.Int(name))
}

// admission makes the option that holds the bounds of a listener. The sockets
// that one part opens share the bounds. wait is how long a connection waits
// when there is no descriptor for it; connections beyond connections= are
// refused at once. The connections are spread over the loops of env.Group.
func admission(env *Env, p *Part, wait time.Duration) weir.AcceptOption {
	c := layer.LimitConfig{
		Total:      bound(p, "connections", roomFor(files.Limit(), env.loops())),
		PerAddress: bound(p, "per-address", 0),
	}
	if !p.Has("connections") {
		c.Wait = wait
	}
	if !p.Has("per-address") {
		c.Share, c.Patience = defaultShare, peerWait
	}
	if room, limit := Room(env.loops()); p.Has("connections") && room > 0 && c.Total > room {
		env.warn(fmt.Sprintf("connections=%d is more than the limit of open files, %d, has room for, which is %d; further connections wait (ulimit -n changes the limit)", c.Total, limit, room))
	}
	g := &gate{Limiter: layer.NewLimiter(c), allow: networks(p, "allow"), deny: networks(p, "deny")}
	if len(g.allow)+len(g.deny) == 0 {
		return weir.JoinOptions(weir.WithAdmission(g.Limiter), weir.WithGroup(env.Group))
	}
	return weir.JoinOptions(weir.WithAdmission(g), weir.WithGroup(env.Group))
}

// loops is how many there are, 1 at least.
func (env *Env) loops() int {
	if env.Group == nil {
		return 1
	}
	return len(env.Group.Loops())
}

// gate is the Admission of a listener with allow= or deny=.
type gate struct {
	*layer.Limiter
	allow, deny []netip.Prefix // of unmapped addresses
}

var _ weir.Waiting = (*gate)(nil)

// Admit implements weir.Admission. A peer without an IP address is in no network.
func (g *gate) Admit(peer netip.Addr) error {
	a := peer.Unmap().WithZone("")
	for _, n := range g.deny {
		if n.Contains(a) {
			return &NetworkError{Addr: a, Network: n}
		}
	}
	if len(g.allow) > 0 && !slices.ContainsFunc(g.allow, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return &NetworkError{Addr: a}
	}
	return g.Limiter.Admit(peer)
}

// NetworkError says that the networks of a listener's allow= or deny= keep a client out.
type NetworkError struct {
	Addr    netip.Addr   // not valid if the client has none
	Network netip.Prefix // of deny= that it is in; not valid: it is in none of allow=
}

func (e *NetworkError) Error() string {
	who := "a client without an IP address"
	if e.Addr.IsValid() {
		who = e.Addr.String()
	}
	if e.Network.IsValid() {
		return who + " may not connect here (deny=" + e.Network.String() + ")"
	}
	return who + " may not connect here: it is in no network of allow="
}

// networks are the values of an option, in the form in which gate compares them.
func networks(p *Part, option string) (all []netip.Prefix) {
	for _, v := range p.Values(option) {
		n, _ := ParseNetwork(v) // the option's type has checked it
		if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
		all = append(all, n.Masked())
	}
	return all
}

// roomFor is how many connections on a number of loops fit within a limit of open files; 0 if
// there is no limit.
func roomFor(files uint64, loops int) int {
	if files == 0 || files > math.MaxInt32 {
		return 0
	}
	n := int(files) - (loops-1)*descriptorsLoop
	return max(1, max(n-descriptorsKept, n/2)/2)
}

// describeBounds is what Describe says about the bounds.
func describeBounds(p *Part) string {
	d := ""
	if v := p.Value("connections"); v == "none" {
		d += ", any number of connections"
	} else if v != "" {
		d += ", at most " + v + " connections at once"
	}
	if v := p.Value("per-address"); v == "none" {
		d += ", any number from one address"
	} else if v != "" {
		d += ", at most " + v + " from one address"
	}
	if p.Has("allow") {
		d += ", only from " + strings.Join(p.Values("allow"), ", ")
	}
	if p.Has("deny") {
		d += ", not from " + strings.Join(p.Values("deny"), ", ")
	}
	return d
}

// Room returns how many connections of a listener the limit of open files has room for,
// each with one to the other side, if they are spread over a number of loops, and that limit; 0
// if there is none. Any goroutine may call it.
func Room(loops int) (connections int, limit uint64) {
	n := files.Limit()
	return roomFor(n, loops), n
}
