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

// Static is a weir.Resolver that knows what it is given and nothing else, for
// tests and for programs whose names do not change. Names are compared without
// regard to case, and with or without their last dot.
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

// LookupNetIP implements weir.Resolver.
func (s static) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	addrs, known := s.hosts.lookup(network, host)
	var err error
	if len(addrs) == 0 {
		err = &Error{Name: host, Err: ErrNotFound, NoName: !known}
	}
	call := l.Soon(func() { done(addrs, err) })
	return func() { call.Cancel() }
}

// System is a weir.Resolver that asks the operating system, through package net,
// for what only that knows: mDNS, LDAP, a company's directory. It takes a
// goroutine for each lookup, which may take a thread. timeout bounds each; 0 is
// 30 s.
func System(timeout time.Duration) weir.Resolver {
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	return system{timeout}
}

type system struct{ timeout time.Duration }

// LookupNetIP implements weir.Resolver.
func (s system) LookupNetIP(l *weir.Loop, network, host string, done func([]netip.Addr, error)) (cancel func()) {
	ctx, stop := context.WithTimeout(context.Background(), s.timeout)
	over := false // of the loop's goroutine
	go func() {   // not simulated: the operating system's resolver blocks
		defer stop()
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
		for i := range addrs {
			addrs[i] = addrs[i].Unmap()
		}
		// A loop that is closed meanwhile wants no answer.
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
// priority, and among equals at random by weight (RFC 2782). What is not an SRV
// record, or says with the target "." that there is no service, is left out.
// Chance comes from random, crypto/rand.Reader for example.
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
		// Those of weight 0 first, as the algorithm of the RFC has it.
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

// shuffle orders records of one priority: each place is drawn among those that
// are left, by weight.
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
	return int(v % uint64(n)) // n is small: what is uneven about it is below 2^-40
}
