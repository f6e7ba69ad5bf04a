package dns

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-io/weir"
)

// Static returns a weir.Resolver that knows the names it is given and nothing
// else, for tests and for programs whose names do not change. Names are
// compared ignoring case and a final dot.
func Static(names map[string][]netip.Addr) weir.Resolver {
	h := &Hosts{addrs: map[string][]netip.Addr{}, names: map[netip.Addr][]string{}}
	for name, addrs := range names { // any order: each name is a key of its own
		for _, a := range addrs {
			h.add(name, a)
		}
	}
	return static{h}
}

type static struct{ hosts *Hosts }

var _ weir.Resolver = static{}

func (s static) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	addrs, known := s.hosts.lookup(network, host)
	var err error
	if len(addrs) == 0 {
		err = &Error{Name: host, Err: ErrNotFound, NoName: !known}
	}
	call := l.Soon(func() { done(addrs, err) })
	return func() { call.Cancel() }
}

// System returns a weir.Resolver that asks the operating system, through
// package net, for what only the system knows: mDNS, LDAP, a company's
// directory. Each lookup uses a goroutine, which may use a thread. timeout
// bounds each lookup; 0 means 30 s.
func System(timeout time.Duration) weir.Resolver {
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	return system{timeout}
}

type system struct{ timeout time.Duration }

var _ weir.Resolver = system{}

func (s system) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	ctx, stop := context.WithTimeout(context.Background(), s.timeout)
	over := false // belongs to the loop's goroutine
	go func() {   // not simulated: the operating system's resolver blocks
		defer stop()
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		// A loop that has been closed meanwhile wants no answer.
		_, _ = l.Post(func() {
			if !over {
				over = true
				done(addrs, err)
			}
		})
	}()
	return func() {
		over = true
		stop()
	}
}

// OrderSRV puts SRV records into the order in which a client tries them: by
// priority, and among equals at random by weight (RFC 2782). Records that are
// not SRV records, or whose target "." says that there is no service, are left
// out. Randomness comes from random, for example crypto/rand.Reader.
func OrderSRV(records []Record, random io.Reader) []Record {
	var all []Record
	for i := range records {
		if r := records[i]; r.Type == SRV && r.Target != "." {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b Record) int {
		if a.Priority != b.Priority {
			return int(a.Priority) - int(b.Priority)
		}
		// Records of weight 0 come first, as in the RFC's algorithm.
		return min(int(a.Weight), 1) - min(int(b.Weight), 1)
	})
	d := draws{from: random}
	for from := 0; from < len(all); {
		to := from
		for to < len(all) && all[to].Priority == all[from].Priority {
			to++
		}
		shuffle(all[from:to], &d)
		from = to
	}
	return all
}

// shuffle orders records of one priority: each place is drawn, by weight, among
// the records that are left.
func shuffle(all []Record, d *draws) {
	for i := range all {
		sum := 0
		for k := i; k < len(all); k++ {
			sum += int(all[k].Weight)
		}
		at, k := d.below(sum+1), i
		for run := int(all[i].Weight); run < at; run += int(all[k].Weight) {
			k++
		}
		picked := all[k]
		copy(all[i+1:k+1], all[i:k])
		all[i] = picked
	}
}

// below draws a number from 0 to n-1.
func (d *draws) below(n int) int {
	v := uint64(d.uint16())<<48 | uint64(d.uint16())<<32 | uint64(d.uint16())<<16 | uint64(d.uint16())
	return int(v % uint64(n)) // n is small: the bias is below 2^-40
}
