package dns

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Type is the type of a record, by its number.
type Type uint16

// The types that Lookup knows how to read. Records of other types arrive as
// Data.
const (
	A     Type = 1
	NS    Type = 2
	CNAME Type = 5
	SOA   Type = 6
	PTR   Type = 12
	MX    Type = 15
	TXT   Type = 16
	AAAA  Type = 28
	SRV   Type = 33
	SVCB  Type = 64
	HTTPS Type = 65
)

// Types whose records arrive as Data, and that Record.String knows how to
// write.
const (
	HINFO   Type = 13
	NAPTR   Type = 35
	DNAME   Type = 39
	DS      Type = 43
	SSHFP   Type = 44
	RRSIG   Type = 46
	NSEC    Type = 47
	DNSKEY  Type = 48
	TLSA    Type = 52
	SMIMEA  Type = 53
	CDS     Type = 59
	CDNSKEY Type = 60
	CAA     Type = 257
)

var typeNames = []struct {
	t    Type
	name string
}{
	{A, "A"},
	{NS, "NS"},
	{CNAME, "CNAME"},
	{SOA, "SOA"},
	{PTR, "PTR"},
	{MX, "MX"},
	{TXT, "TXT"},
	{AAAA, "AAAA"},
	{SRV, "SRV"},
	{SVCB, "SVCB"},
	{HTTPS, "HTTPS"},
	{HINFO, "HINFO"},
	{NAPTR, "NAPTR"},
	{DNAME, "DNAME"},
	{DS, "DS"},
	{SSHFP, "SSHFP"},
	{RRSIG, "RRSIG"},
	{NSEC, "NSEC"},
	{DNSKEY, "DNSKEY"},
	{TLSA, "TLSA"},
	{SMIMEA, "SMIMEA"},
	{CDS, "CDS"},
	{CDNSKEY, "CDNSKEY"},
	{CAA, "CAA"},
}

// String returns the type's name, or TYPE123 if it has none here (RFC 3597).
func (t Type) String() string {
	for _, n := range typeNames {
		if n.t == t {
			return n.name
		}
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// ParseType reads what String writes, ignoring case.
func ParseType(s string) (Type, error) {
	for _, n := range typeNames {
		if strings.EqualFold(n.name, s) {
			return n.t, nil
		}
	}
	if number, ok := strings.CutPrefix(strings.ToUpper(s), "TYPE"); ok {
		if n, err := strconv.ParseUint(number, 10, 16); err == nil && n > 0 {
			return Type(n), nil
		}
	}
	var all []string
	for _, n := range typeNames {
		all = append(all, n.name)
	}
	return 0, fmt.Errorf("dns: unknown type %q: it is one of %s, or TYPE and a number", s, strings.Join(all, " "))
}

// Record is one record of an answer. Type determines which fields are used.
type Record struct {
	Name string // its owner: absolute, in lower case, as are all names here
	Type Type
	TTL  time.Duration // what is left of its time

	Addr     netip.Addr // A, AAAA
	Target   string     // CNAME, NS, PTR, MX, SRV, SVCB, HTTPS: absolute; "." means the owner or no target
	Priority uint16     // MX (its preference), SRV, SVCB, HTTPS
	Weight   uint16     // SRV
	Port     uint16     // SRV
	Text     []string   // TXT: its strings, as they came
	Params   []Param    // SVCB, HTTPS, in order of their keys
	SOA      *Authority // SOA
	Data     []byte     // of other types: as it came
}

// Param is a parameter of an SVCB or HTTPS record (RFC 9460), as it came.
type Param struct {
	Key   uint16
	Value []byte
}

// String writes the record as a zone file does; data of a type that is not
// known here, or that do not have their type's format, are written as in RFC
// 3597. Nothing is copied as it came: every character that is not printable is
// escaped.
func (r Record) String() string {
	return fmt.Sprintf("%s %d IN %s %s", escape(r.Name), int(r.TTL/time.Second), r.Type, r.Value())
}

// Value returns the part of String after the type.
func (r Record) Value() string {
	switch r.Type {
	case A, AAAA:
		return r.Addr.String()
	case CNAME, NS, PTR:
		return escape(r.Target)
	case MX:
		return fmt.Sprintf("%d %s", r.Priority, escape(r.Target))
	case SRV:
		return fmt.Sprintf("%d %d %d %s", r.Priority, r.Weight, r.Port, escape(r.Target))
	case TXT:
		var all []string
		for _, s := range r.Text {
			all = append(all, quote([]byte(s)))
		}
		return strings.Join(all, " ")
	case SVCB, HTTPS:
		s := fmt.Sprintf("%d %s", r.Priority, escape(r.Target))
		for _, p := range r.Params {
			s += " " + p.String()
		}
		return s
	case SOA:
		if a := r.SOA; a != nil {
			return fmt.Sprintf("%s %s %d %d %d %d %d", escape(a.Server), escape(a.Mailbox), a.Serial,
				a.Refresh/time.Second, a.Retry/time.Second, a.Expire/time.Second, a.Minimum/time.Second)
		}
	default:
	}
	if s, ok := present(r.Type, r.Data); ok {
		return s
	}
	return unknown(r.Data)
}

// escape makes a name or a text printable (RFC 1035, 5.1).
func escape(s string) string { return escapeAll([]byte(s)) }

func escapeAll(s []byte) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\\':
			b.WriteString(`\\`)
		case c >= ' ' && c < 0x7f:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03d`, c)
		}
	}
	return b.String()
}

// Answer is what a Lookup found.
type Answer struct {
	Name    string   // the name that was asked for in the end: completed by the search list, absolute
	Records []Record // of the type that was asked for, at the end of the aliases
	Aliases []Record // the CNAMEs on the way there, in order
	Server  netip.AddrPort
	TTL     time.Duration // the shortest on the way
	Cached  bool          // it came from the cache
	Stale   bool          // it is past its TTL, and no server answered (WithStale)
}
