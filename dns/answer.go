package dns

import (
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The wire of a Server, without I/O: questions are read and answers are built here.

const (
	plainSize   = 512 // of an answer over UDP to one who says no more (RFC 1035, 4.2.1)
	typeOPT     = 41
	typeMeta    = 128 // from here to 255 types are about a question, and not about records (RFC 6895, 3.1)
	typeMetaEnd = 255
)

// asked is a question that a Server was asked.
type asked struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	has      bool // there is a question
	edns     bool
	size     int    // of the answer over UDP, at most
	zone     Record // the SOA of a negative answer (RFC 2308, 2); Type 0: none
}

// readQuestion reads a message as a question. code is what to answer if it cannot be
// looked up; ok is false for what is not to be answered at all.
func readQuestion(msg []byte) (q asked, code dnsmessage.RCode, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return q, 0, false
	}
	q.header, q.size = h, plainSize
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	if q.question, err = p.Question(); err != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	q.has = true
	if err := p.SkipAllQuestions(); err != nil || msg[4] != 0 || msg[5] != 1 {
		return q, dnsmessage.RCodeFormatError, true
	}
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	for range recordsMax {
		r, err := p.AdditionalHeader()
		if err != nil {
			break
		}
		if r.Type == dnsmessage.TypeOPT && !q.edns {
			q.edns = true
			q.size = min(max(int(r.Class), plainSize), udpSize)
			if r.TTL>>16&0xff != 0 {
				return q, badVersion, true
			}
		}
		if p.SkipAdditional() != nil {
			return q, dnsmessage.RCodeFormatError, true
		}
	}
	t := q.question.Type
	switch {
	case q.question.Class != dnsmessage.ClassINET, t == typeOPT:
		return q, dnsmessage.RCodeRefused, true
	case t >= typeMeta && t <= typeMetaEnd: // ANY among them (RFC 8482), and transfers of zones
		return q, dnsmessage.RCodeNotImplemented, true
	}
	return q, dnsmessage.RCodeSuccess, true
}

// reply is the message that answers, of most bytes: what does not fit is left out, and
// said to be (TC), so that the client asks over TCP.
func (q *asked) reply(code dnsmessage.RCode, a Answer, most int) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RCode: code & 0xf,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true,
	}}
	if q.has {
		m.Questions = []dnsmessage.Question{q.question}
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		if h.SetEDNS0(udpSize, code, false) == nil {
			m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
		}
	}
	for _, all := range [...][]Record{a.Aliases, a.Records} {
		for i := range all {
			if r, ok := packed(&all[i]); ok {
				m.Answers = append(m.Answers, r)
			}
		}
	}
	if r, ok := packed(&q.zone); ok && q.zone.Type == SOA {
		m.Authorities = []dnsmessage.Resource{r}
	}
	b, err := m.Pack()
	if err == nil && len(b) <= most {
		return b
	}
	m.Answers, m.Authorities, m.Truncated = nil, nil, err == nil
	if err != nil {
		m.RCode = dnsmessage.RCodeServerFailure
	}
	if b, err = m.Pack(); err != nil {
		return nil
	}
	return b
}

// packed is a record as the wire has it.
func packed(r *Record) (res dnsmessage.Resource, ok bool) {
	name, err := dnsmessage.NewName(r.Name)
	if err != nil {
		return res, false
	}
	res.Header = dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.Type(r.Type), Class: dnsmessage.ClassINET, TTL: uint32(max(r.TTL, 0) / time.Second)}
	target, err := dnsmessage.NewName(r.Target)
	switch r.Type {
	case CNAME, NS, PTR, MX, SRV, SVCB, HTTPS:
		if err != nil {
			return res, false
		}
	default:
	}
	switch r.Type {
	case A:
		if !r.Addr.Is4() {
			return res, false
		}
		res.Body = &dnsmessage.AResource{A: r.Addr.As4()}
	case AAAA:
		if !r.Addr.IsValid() {
			return res, false
		}
		res.Body = &dnsmessage.AAAAResource{AAAA: r.Addr.As16()}
	case CNAME:
		res.Body = &dnsmessage.CNAMEResource{CNAME: target}
	case NS:
		res.Body = &dnsmessage.NSResource{NS: target}
	case PTR:
		res.Body = &dnsmessage.PTRResource{PTR: target}
	case MX:
		res.Body = &dnsmessage.MXResource{Pref: r.Priority, MX: target}
	case SRV:
		res.Body = &dnsmessage.SRVResource{Priority: r.Priority, Weight: r.Weight, Port: r.Port, Target: target}
	case TXT:
		res.Body = &dnsmessage.TXTResource{TXT: r.Text}
	case SVCB:
		res.Body = &dnsmessage.SVCBResource{Priority: r.Priority, Target: target, Params: r.params()}
	case HTTPS:
		res.Body = &dnsmessage.HTTPSResource{SVCBResource: dnsmessage.SVCBResource{Priority: r.Priority, Target: target, Params: r.params()}}
	case SOA:
		return r.soa(res)
	default:
		res.Body = &dnsmessage.UnknownResource{Type: dnsmessage.Type(r.Type), Data: r.Data}
	}
	return res, true
}

func (r *Record) params() (all []dnsmessage.SVCParam) {
	for _, p := range r.Params {
		all = append(all, dnsmessage.SVCParam{Key: dnsmessage.SVCParamKey(p.Key), Value: p.Value})
	}
	return all
}

func (r *Record) soa(res dnsmessage.Resource) (dnsmessage.Resource, bool) {
	if r.SOA == nil {
		return res, false
	}
	ns, err := dnsmessage.NewName(r.SOA.Server)
	if err != nil {
		return res, false
	}
	box, err := dnsmessage.NewName(r.SOA.Mailbox)
	if err != nil {
		return res, false
	}
	sec := func(d time.Duration) uint32 { return uint32(d / time.Second) }
	res.Body = &dnsmessage.SOAResource{
		NS: ns, MBox: box, Serial: r.SOA.Serial, Refresh: sec(r.SOA.Refresh), Retry: sec(r.SOA.Retry),
		Expire: sec(r.SOA.Expire), MinTTL: sec(r.SOA.Minimum),
	}
	return res, true
}
