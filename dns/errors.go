package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// What can be wrong with a name or a question, for use with errors.Is.
var (
	// ErrNotFound: the name does not exist, or has no records of the type;
	// Error.NoName says which.
	ErrNotFound = errors.New("no such host or record")
	// ErrTimeout: no server answered in time.
	ErrTimeout = errors.New("no server answered in time")
	// ErrServer: the servers could not answer the question, or could not be
	// reached.
	ErrServer = errors.New("no server could answer")
	// ErrAliases: more than 32 aliases in a row, or a cycle of them.
	ErrAliases = errors.New("too many aliases")
	// ErrBadName: no host can have the name.
	ErrBadName = errors.New("not a host name")
	// ErrBusy: too many questions are under way.
	ErrBusy = errors.New("too many questions under way")
)

// Error says why a lookup failed.
type Error struct {
	Name string // as the caller gave it
	Type Type   // 0 for addresses
	Err  error  // one of this package's errors, or the system's
	// NoName, with ErrNotFound, says that the name does not exist at all.
	NoName bool
	// Tried lists the servers that were asked, in order, and how each failed.
	Tried []Attempt

	none *absence // with ErrNotFound, what the server said; nil: it said no more
}

// absence is what a negative answer says besides its code. It does not change.
type absence struct {
	aliases []Record // that lead to the name that does not exist
	zone    Record   // the SOA, whose TTL says how long there is none (RFC 2308, 3); Type 0: none came
	since   time.Time
}

// at is the absence with what is left of its TTLs.
func (n *absence) at(now time.Time) (aliases []Record, zone Record) {
	left := func(r Record) Record {
		r.TTL = max(r.TTL-now.Sub(n.since), 0)
		return r
	}
	for _, r := range n.aliases {
		aliases = append(aliases, left(r))
	}
	return aliases, left(n.zone)
}

// Attempt is one query that failed.
type Attempt struct {
	Server netip.AddrPort
	TCP    bool
	Err    error
}

func (a Attempt) String() string {
	over := "udp"
	if a.TCP {
		over = "tcp"
	}
	return fmt.Sprintf("%s over %s: %v", a.Server, over, a.Err)
}

func (e *Error) Error() string {
	what := "lookup of " + escape(e.Name)
	if e.Type != 0 {
		what += " " + e.Type.String()
	}
	s := "dns: " + what + ": " + e.Err.Error()
	if len(e.Tried) > 0 {
		var all []string
		for _, a := range e.Tried {
			all = append(all, a.String())
		}
		s += " (" + strings.Join(all, "; ") + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether no server answered in time.
func (e *Error) Timeout() bool { return errors.Is(e.Err, ErrTimeout) }

// Temporary reports whether it is worth asking again.
func (e *Error) Temporary() bool {
	return e.Timeout() || errors.Is(e.Err, ErrServer) || errors.Is(e.Err, ErrBusy)
}

// As lets errors.As convert the error to package net's.
func (e *Error) As(target any) bool {
	t, ok := target.(**net.DNSError)
	if !ok {
		return false
	}
	d := &net.DNSError{
		Err: e.Err.Error(), Name: e.Name, IsTimeout: e.Timeout(), IsTemporary: e.Temporary(),
		IsNotFound: errors.Is(e.Err, ErrNotFound) || errors.Is(e.Err, ErrBadName),
	}
	if n := len(e.Tried); n > 0 {
		d.Server = e.Tried[n-1].Server.String()
	}
	*t = d
	return true
}

// badVersion is BADVERS of EDNS (RFC 6891, 9).
const badVersion = 16

// codeError is a reply's error code.
type codeError int

func (c codeError) Error() string {
	names := [...]string{
		"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
		badVersion: "BADVERS", 23: "BADCOOKIE",
	}
	if int(c) < len(names) && names[c] != "" {
		return names[c]
	}
	return fmt.Sprintf("error code %d", int(c))
}
