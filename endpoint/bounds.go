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
		{Name: "connections", Type: Bound, Doc: "how many at once; without it, as many as the limit of open files has room for"},
		{Name: "per-address", Type: Bound, Doc: "how many of them from one address; without it, 15 times as many as there are places left"},
	}
}

// boundsDoc explains them.
const boundsDoc = "\nA connection counts as two descriptors of the limit of open files (ulimit -n). While\n" +
	"all are taken further ones wait, unaccepted, until one ends; on a UNIX socket they are\n" +
	"reset. One address never gets the last places: its further ones wait up to 2 s, then\n" +
	"are reset. What connections= or per-address= says is a bound: those beyond it are reset\n" +
	"at once. There is a warning every 10 s. An IPv6 address counts with all others of its\n" +
	"/64. Where every connection comes from one proxy and the last sixteenth is missed:\n" +
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
// refused at once.
func admission(p *Part, wait time.Duration) weir.AcceptOption {
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
	return weir.WithAdmission(layer.NewLimiter(c))
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
