package endpoint

import (
	"math"
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
	}
}

// boundsDoc explains them.
const boundsDoc = "\nEach connection counts as two descriptors of the limit of open files (ulimit -n). When\n" +
	"none are left, new connections wait in the system's queue until one ends; on a UNIX\n" +
	"socket they are reset. One address never gets the last places: its new connections wait\n" +
	"up to 2 s, then are reset. Connections beyond connections= or per-address= are reset at\n" +
	"once. weir warns every 10 s. An IPv6 address counts together with the rest of its /64.\n" +
	"If all connections come from one proxy, and it needs the last sixteenth too, write\n" +
	"per-address=none."

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
		Total:      bound(p, "connections", roomFor(files.Limit())),
		PerAddress: bound(p, "per-address", 0),
	}
	if !p.Has("connections") {
		c.Wait = wait
	}
	if !p.Has("per-address") {
		c.Share, c.Patience = defaultShare, peerWait
	}
	return weir.JoinOptions(weir.WithAdmission(layer.NewLimiter(c)), weir.WithGroup(env.Group))
}

// roomFor is how many connections fit within a limit of open files; 0 if there
// is no limit.
func roomFor(files uint64) int {
	if files == 0 || files > math.MaxInt32 {
		return 0
	}
	n := int(files)
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
	return d
}
