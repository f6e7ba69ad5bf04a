package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The wire format, without I/O: queries are built and replies are read here.

const (
	udpSize    = 1232 // what we claim to accept over UDP (RFC 9715)
	udpMost    = 4096 // what we really accept
	aliasesMax = 32   // CNAMEs that are followed for one name
	recordsMax = 1024 // records that are read in one section of a reply
	nameMax    = 254  // bytes of a name in text, with its last dot
	labelMax   = 63   // bytes of a label
)

// query is one question as it goes over the wire.
type query struct {
	id    uint16
	name  dnsmessage.Name // in the case that was drawn for it
	qtype Type
	edns  bool
	pad   bool // to a multiple of padTo
	fold  bool // ignore the case of the reply's name: over TCP, and for servers that change it
}

// pack appends the query to buf.
func (q *query) pack(buf []byte) ([]byte, error) {
	b := dnsmessage.NewBuilder(buf, dnsmessage.Header{ID: q.id, RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	err := b.Question(dnsmessage.Question{Name: q.name, Type: dnsmessage.Type(q.qtype), Class: dnsmessage.ClassINET})
	if err != nil {
		return nil, err
	}
	if q.edns {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(udpSize, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{Options: q.padding()}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

const (
	paddingOption = 12  // RFC 7830
	padTo         = 128 // RFC 8467
)

// padding returns the option that makes the query's length a multiple of padTo.
func (q *query) padding() []dnsmessage.Option {
	if !q.pad {
		return nil
	}
	// The header, the question, the OPT record, and the option's own header.
	size := headerSize + int(q.name.Length) + 1 + 4 + 11 + 4
	return []dnsmessage.Option{{Code: paddingOption, Data: make([]byte, (padTo-size%padTo)%padTo)}}
}

// Why a message is not the reply to a query.
var (
	errNotReply  = errors.New("not a reply to the query")
	errOtherCase = fmt.Errorf("%w: its name is in another case", errNotReply)
	errBadReply  = errors.New("reply cannot be read")
)

// response is a reply that was accepted for a query, as far as the query is
// concerned.
type response struct {
	code      dnsmessage.RCode // including the bits from EDNS (RFC 6891, 6.1.3)
	edns      bool             // the server understands EDNS: it said so
	truncated bool
	recursive bool // the server can ask others
	authority bool
	aliases   []Record
	records   []Record
	end       string // where the aliases lead, in lower case
	circle    bool   // they lead back to one of them
	foreign   bool   // there are records, but none of them is about the question
	soa       bool   // the authority section has the SOA of a negative answer
	zone      Record // that SOA
	negative  time.Duration
	referral  bool
}

// read reads a message as the reply to q. errNotReply says that it answers
// something else, or is a forgery; errOtherCase that only the case of its name
// is wrong; any other error that it is the server's reply, but a bad one.
func (q *query) read(msg []byte) (*response, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != q.id || h.OpCode != 0 {
		return nil, errNotReply
	}
	question, err := p.Question()
	if errors.Is(err, dnsmessage.ErrSectionDone) && h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError {
		// Some servers leave the question out of an error. The id is right, and
		// all that the error does is make us ask elsewhere.
		return &response{code: h.RCode}, nil
	}
	if err != nil || question.Class != dnsmessage.ClassINET || Type(question.Type) != q.qtype || lower(question.Name.String()) != lower(q.name.String()) {
		return nil, errNotReply
	}
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return nil, errNotReply
	}
	if !q.fold && question.Name.String() != q.name.String() {
		return nil, errOtherCase
	}
	r := &response{code: h.RCode, truncated: h.Truncated, recursive: h.RecursionAvailable, authority: h.Authoritative}
	if r.truncated {
		return r, nil // the part that came is not used
	}
	if !wellFormed(msg) {
		if !r.conclusive() {
			return r, nil // the code is enough
		}
		return nil, errBadReply
	}
	answers, err := readSection(p.Answer)
	if err != nil {
		return nil, err
	}
	r.follow(lower(q.name.String()), q.qtype, answers)
	r.foreign = binary.BigEndian.Uint16(msg[6:]) > 0 && len(r.records)+len(r.aliases) == 0
	if err := r.readAuthority(&p); err != nil {
		return nil, err
	}
	return r, r.readAdditional(&p)
}

// conclusive reports whether the code is that of an answer. All others say that
// the server could not or would not answer.
func (r *response) conclusive() bool {
	return r.code == dnsmessage.RCodeSuccess || r.code == dnsmessage.RCodeNameError
}

// lame reports whether a reply that says success holds nothing: no answer, and
// nothing that makes it a negative one. A server without the zone and without
// recursion sends such replies, and so does a broken one (RFC 2308, 2.2; RFC
// 1912, 2.8).
func (r *response) lame() bool {
	if r.code != dnsmessage.RCodeSuccess || len(r.records)+len(r.aliases) > 0 || r.soa {
		return false
	}
	return r.foreign || !r.authority && (r.referral || !r.recursive)
}

// readSection reads the resources of one section.
func readSection(next func() (dnsmessage.Resource, error)) ([]Record, error) {
	var all []Record
	for range recordsMax {
		res, err := next()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return all, nil
		}
		if err != nil {
			return nil, errBadReply
		}
		if res.Header.Class != dnsmessage.ClassINET {
			continue
		}
		if rec, ok := record(&res); ok {
			all = append(all, rec)
		}
	}
	return nil, errBadReply
}

// record turns a resource into a Record. It returns false for one that holds a
// name no host can have: it is treated as if it were not there.
func record(res *dnsmessage.Resource) (Record, bool) {
	r := Record{Name: lower(res.Header.Name.String()), Type: Type(res.Header.Type), TTL: seconds(res.Header.TTL)}
	ok := true
	switch b := res.Body.(type) {
	case *dnsmessage.AResource:
		r.Addr = netip.AddrFrom4(b.A)
	case *dnsmessage.AAAAResource:
		r.Addr = netip.AddrFrom16(b.AAAA)
	case *dnsmessage.CNAMEResource:
		r.Target, ok = hostName(b.CNAME)
	case *dnsmessage.NSResource:
		r.Target, ok = hostName(b.NS)
	case *dnsmessage.PTRResource:
		r.Target, ok = hostName(b.PTR)
	case *dnsmessage.MXResource:
		r.Priority = b.Pref
		r.Target, ok = hostName(b.MX)
	case *dnsmessage.SRVResource:
		r.Priority, r.Weight, r.Port = b.Priority, b.Weight, b.Port
		r.Target, ok = hostName(b.Target)
	case *dnsmessage.TXTResource:
		r.Text = b.TXT
	case *dnsmessage.SVCBResource:
		ok = r.service(b)
	case *dnsmessage.HTTPSResource:
		ok = r.service(&b.SVCBResource)
	case *dnsmessage.SOAResource:
		r.SOA = &Authority{Server: lower(b.NS.String()), Serial: b.Serial, Mailbox: lower(b.MBox.String()), Refresh: seconds(b.Refresh), Retry: seconds(b.Retry), Expire: seconds(b.Expire), Minimum: seconds(b.MinTTL)}
	case *dnsmessage.UnknownResource:
		r.Data = b.Data
	}
	return r, ok
}

func (r *Record) service(b *dnsmessage.SVCBResource) (ok bool) {
	r.Priority = b.Priority
	r.Target, ok = hostName(b.Target)
	for _, p := range b.Params {
		r.Params = append(r.Params, Param{Key: uint16(p.Key), Value: p.Value})
	}
	return ok
}

// seconds converts a TTL; one with the highest bit set is 0 (RFC 2181, 8).
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// follow picks out the records that answer the question: those of its type at
// the end of the aliases that begin with name. Everything else in the section
// is ignored.
func (r *response) follow(name string, qtype Type, answers []Record) {
	r.end = name
	for range aliasesMax + 1 {
		var alias *Record
		for i := range answers {
			a := &answers[i]
			if lower(a.Name) != r.end {
				continue
			}
			if a.Type == qtype {
				r.records = append(r.records, *a)
			} else if a.Type == CNAME && alias == nil {
				alias = a
			}
		}
		if len(r.records) > 0 || alias == nil {
			return
		}
		r.aliases = append(r.aliases, *alias)
		r.end = lower(alias.Target)
		if r.circle = inCircle(name, r.aliases); r.circle {
			return
		}
	}
}

// inCircle reports whether the last alias of a name leads back to an earlier
// one.
func inCircle(name string, aliases []Record) bool {
	end := aliases[len(aliases)-1].Target
	return end == name || slices.ContainsFunc(aliases, func(r Record) bool { return lower(r.Name) == end })
}

// readAuthority looks for the SOA of a negative answer, and for a referral.
func (r *response) readAuthority(p *dnsmessage.Parser) error {
	all, err := readSection(p.Authority)
	if err != nil {
		return err
	}
	for _, a := range all {
		owner := lower(a.Name)
		if r.end != owner && !strings.HasSuffix(r.end, "."+owner) && owner != "." {
			continue
		}
		switch a.Type {
		case SOA:
			// How long a negative answer is valid (RFC 2308, 5).
			r.soa, r.zone, r.negative = true, a, min(a.TTL, a.SOA.Minimum)
		case NS:
			r.referral = true
		default:
		}
	}
	return nil
}

// readAdditional looks for the OPT record of EDNS, which holds the higher bits
// of the code: an error that shows only in those bits is no answer either
// (BADVERS is 16).
func (r *response) readAdditional(p *dnsmessage.Parser) error {
	for range recordsMax {
		h, err := p.AdditionalHeader()
		switch {
		case errors.Is(err, dnsmessage.ErrSectionDone):
			return nil
		case err != nil:
			return errBadReply
		case h.Type == dnsmessage.TypeOPT:
			r.edns = true
			r.code = h.ExtendedRCode(r.code)
			return nil
		}
		if err := p.SkipAdditional(); err != nil {
			return errBadReply
		}
	}
	return errBadReply
}

// ttl is the shortest TTL on the way to the answer.
func (r *response) ttl() time.Duration {
	ttl := time.Duration(-1)
	for _, all := range [...][]Record{r.aliases, r.records} {
		for i := range all {
			if ttl < 0 || all[i].TTL < ttl {
				ttl = all[i].TTL
			}
		}
	}
	return max(ttl, 0)
}

func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			return lowerCopy(s)
		}
	}
	return s
}

// lowerCopy converts ASCII letters to lower case, and no others: names are
// bytes.
func lowerCopy(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// hostName checks a name that came over the wire before it is used. Its case
// may be what we drew ourselves, so the case is not kept.
func hostName(n dnsmessage.Name) (string, bool) {
	s := lower(n.String())
	return s, s == "." || validName(s)
}

// validName reports whether an absolute name is one that a host or a service
// can have: labels of letters, digits, hyphens and underscores; only the first
// label may be "*".
func validName(s string) bool {
	if len(s) > nameMax || !strings.HasSuffix(s, ".") {
		return false
	}
	s = strings.TrimPrefix(s, "*.")
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			if n == 0 || n > labelMax {
				return false
			}
			n = 0
			continue
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		case c == '/':
			// RFC 2317: reverse zones smaller than a class C network.
		default:
			return false
		}
		n++
	}
	return true
}
