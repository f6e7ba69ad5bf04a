package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/dns"
)

// TestSecondOpinion sends correct replies, and replies with bytes changed at
// random, to weir's resolver, and compares its reading with that of miekg/dns:
// what weir believes, the other has to find in the message too, and weir has to
// believe correct replies.
func TestSecondOpinion(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	type sent struct {
		msg   []byte
		whole bool
	}
	var mu sync.Mutex
	replies := map[string]sent{}
	r := rand.New(rand.NewPCG(1, 2))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var q miekg.Msg
			if err := q.Unpack(buf[:n]); err != nil || len(q.Question) != 1 {
				t.Errorf("miekg/dns cannot read a query of weir's: %v", err)
				continue
			}
			msg := answer(t, r, &q)
			s := sent{msg, true}
			if m := strings.ToLower(q.Question[0].Name); m[0] == 'n' && r.IntN(2) == 0 {
				s.whole = false
				// The header and the question stay unchanged, or it would be no one's reply.
				first := 12 + len(q.Question[0].Name) + 1 + 4
				for range 1 + r.IntN(3) {
					if len(msg) > first {
						msg[first+r.IntN(len(msg)-first)] = byte(r.IntN(256))
					}
				}
			}
			mu.Lock()
			replies[strings.ToLower(q.Question[0].Name)] = s
			mu.Unlock()
			_, _ = conn.WriteTo(msg, from)
		}
	}()
	defer func() { conn.Close(); <-done }()
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	res := dns.New(dns.WithConfig(dns.Config{Servers: []netip.AddrPort{netip.MustParseAddrPort(conn.LocalAddr().String())}, Timeout: time.Second, Attempts: 1}),
		dns.WithHosts(nil), dns.WithCache(0))
	const total, ahead = 20_000, 32
	asked, ended, believed, refused := 0, 0, 0, 0
	var next func()
	next = func() {
		name := fmt.Sprintf("n%d.opinion.test.", asked)
		asked++
		res.Lookup(l, name, dns.A, func(a dns.Answer, err error) {
			ended++
			mu.Lock()
			s := replies[name]
			delete(replies, name)
			mu.Unlock()
			want, readable := opinion(s.msg, name)
			var got []string
			for i := range a.Records {
				got = append(got, a.Records[i].Addr.String())
			}
			slices.Sort(got)
			switch {
			case !readable && foreign(s.msg):
				// A type that miekg/dns knows and weir does not: its data is opaque to
				// weir, but wrong to the other.
				refused++
			case err == nil && !slices.Equal(got, want):
				t.Errorf("%s: weir believes %v, miekg/dns reads %v, %t: %x", name, got, want, readable, s.msg)
			case err == nil:
				believed++
			case s.whole && len(want) > 0:
				t.Errorf("%s: weir says %v of a right reply: %x", name, err, s.msg)
			default:
				refused++
			}
			switch {
			case asked < total:
				next()
			case ended == total:
				l.Stop()
			}
		})
	}
	for range ahead {
		next()
	}
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d believed, %d refused", believed, refused)
	if believed < total/4 || refused < total/20 {
		t.Errorf("%d believed and %d refused of %d: too few of one to tell", believed, refused, total)
	}
}

// answer makes a correct reply to q: aliases or none, addresses or none, and
// irrelevant records.
func answer(t *testing.T, r *rand.Rand, q *miekg.Msg) []byte {
	m := new(miekg.Msg)
	m.SetReply(q)
	m.RecursionAvailable, m.Compress = true, r.IntN(2) == 0
	add := func(section *[]miekg.RR, format string, args ...any) {
		rr, err := miekg.NewRR(fmt.Sprintf(format, args...))
		if err != nil {
			t.Error(err)
			return
		}
		*section = append(*section, rr)
	}
	owner := q.Question[0].Name
	if strings.ToLower(owner)[0] != 'n' {
		// The end of an alias that is not in the first reply is asked for: there is none.
		m.Rcode = miekg.RcodeNameError
		b, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return b
	}
	for i := range r.IntN(4) {
		target := fmt.Sprintf("alias%d.opinion.test.", i)
		add(&m.Answer, "%s 60 IN CNAME %s", owner, target)
		owner = target
	}
	for range r.IntN(4) {
		add(&m.Answer, "%s 60 IN A 192.0.2.%d", owner, r.IntN(256))
	}
	if r.IntN(3) == 0 {
		add(&m.Answer, "other.test. 60 IN A 6.6.6.6")
	}
	if len(m.Answer) == 0 {
		m.Rcode = miekg.RcodeNameError
	}
	add(&m.Ns, "opinion.test. 60 IN SOA ns.opinion.test. root.opinion.test. 1 2 3 4 60")
	if r.IntN(2) == 0 {
		add(&m.Extra, "ns.opinion.test. 60 IN AAAA 2001:db8::%d", 1+r.IntN(100))
		add(&m.Extra, "opinion.test. 60 IN TXT \"%d\"", r.IntN(100))
	}
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

// foreign reports whether a message has a record whose data weir does not read.
func foreign(msg []byte) bool {
	_, off, err := miekg.UnpackDomainName(msg, 12)
	if err != nil {
		return false
	}
	for off += 4; off < len(msg); {
		if _, off, err = miekg.UnpackDomainName(msg, off); err != nil || off+10 > len(msg) {
			return false
		}
		t := dns.Type(binary.BigEndian.Uint16(msg[off:]))
		switch t {
		case dns.A, dns.NS, dns.CNAME, dns.SOA, dns.PTR, dns.MX, dns.TXT, dns.AAAA, dns.SRV, dns.SVCB, dns.HTTPS:
		default:
			return true
		}
		off += 10 + int(binary.BigEndian.Uint16(msg[off+8:]))
	}
	return false
}

// opinion is the addresses that miekg/dns finds for a name in a message,
// following its aliases.
func opinion(msg []byte, name string) (addrs []string, readable bool) {
	var m miekg.Msg
	readable = m.Unpack(msg) == nil
	at := strings.ToLower(name)
	for range 9 {
		next := ""
		for _, rr := range m.Answer {
			if strings.ToLower(rr.Header().Name) != at || rr.Header().Class != miekg.ClassINET {
				continue
			}
			switch rr := rr.(type) {
			case *miekg.A:
				addrs = append(addrs, rr.A.String())
			case *miekg.CNAME:
				if next == "" {
					next = strings.ToLower(rr.Target)
				}
			}
		}
		if len(addrs) > 0 || next == "" {
			break
		}
		at = next
	}
	slices.Sort(addrs)
	return addrs, readable
}
