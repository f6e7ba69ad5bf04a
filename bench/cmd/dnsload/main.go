// Command dnsload asks a name server for one name after another as fast as it can, with
// weir's resolver, package net's and miekg/dns's client in turn, and prints the rate
// and the cost of each. No cache is used: every question is a query.
//
//	dnsload -for 5s
//	dnsload -server 127.0.0.1:5300 -name host.weir.test. -for 5s
//
// Without a server it starts one in a process of its own, which does as little as a
// server can. Two more clients show how much could be gained: floor makes the
// system calls of a query with a socket and a port of its own and nothing else;
// weir-tcp sends all queries over one connection, which needs neither.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/dns"
)

var (
	server = flag.String("server", "", "the server, address and port; none: one of its own")
	serves = flag.Bool("serve", false, "be that server: print the address and answer until the input ends")
	name   = flag.String("name", "load.test.", "A records are asked for of n1.NAME, n2.NAME, and so on; that there are none is an answer")
	length = flag.Duration("for", 3*time.Second, "how long each client asks")
	depth  = flag.Int("depth", 64, "how many questions are under way at once")
	which  = flag.String("clients", "weir,net,miekg,floor,weir-tcp", "which clients, in order")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dnsload:", err)
		os.Exit(1)
	}
}

func run() error {
	if *serves {
		return serve()
	}
	if *server == "" {
		own, stop, err := startServer()
		if err != nil {
			return err
		}
		defer stop()
		*server = own
	}
	at, err := netip.ParseAddrPort(*server)
	if err != nil {
		return err
	}
	clients := map[string]func(netip.AddrPort) (asked, failed int, err error){
		"net": askNet, "miekg": askMiekg, "floor": askFloor,
		"weir":     func(at netip.AddrPort) (asked, failed int, err error) { return askWeir(at) },
		"weir-tcp": func(at netip.AddrPort) (asked, failed int, err error) { return askWeir(at, dns.WithTCP()) },
	}
	for c := range strings.SplitSeq(*which, ",") {
		ask := clients[c]
		if ask == nil {
			return fmt.Errorf("no client is called %q", c)
		}
		before, start := cpu(), time.Now()
		asked, failed, err := ask(at)
		took, used := time.Since(start), cpu()-before
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		if asked == 0 {
			return fmt.Errorf("%s: no answer at all", c)
		}
		fmt.Printf("%-8s %8.0f queries/s  %6.1f µs CPU a query  %3.0f %% of a core  %d failed\n", c,
			float64(asked)/took.Seconds(), float64(used.Nanoseconds())/1000/float64(asked), 100*used.Seconds()/took.Seconds(), failed)
	}
	return nil
}

// cpu is the CPU time that this process has used.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func askWeir(at netip.AddrPort, opts ...dns.Option) (asked, failed int, err error) {
	l, err := weir.NewLoop()
	if err != nil {
		return 0, 0, err
	}
	r := dns.New(append(opts, dns.WithConfig(dns.Config{Servers: []netip.AddrPort{at}}), dns.WithHosts(nil), dns.WithCache(0))...)
	over, under := false, 0
	// Equal questions are asked once, so the names differ.
	var ask func()
	n := 0
	ask = func() {
		n++
		under++
		r.Lookup(l, fmt.Sprintf("n%d.%s", n%10_000, *name), dns.A, func(_ dns.Answer, err error) {
			under--
			asked++
			if err != nil && !errors.Is(err, dns.ErrNotFound) {
				failed++
			}
			switch {
			case !over:
				ask()
			case under == 0:
				l.Stop()
			}
		})
	}
	l.After(*length, func() { over = true })
	for range *depth {
		ask()
	}
	err = l.Run()
	return asked, failed, errors.Join(err, l.Close())
}

// askMany runs depth goroutines that ask until the time is over.
func askMany(ask func(name string) error) (asked, failed int, err error) {
	var wg sync.WaitGroup
	var n, bad atomic.Int64
	until := time.Now().Add(*length)
	for range *depth {
		wg.Go(func() {
			for time.Now().Before(until) {
				if err := ask(fmt.Sprintf("n%d.%s", n.Add(1)%10_000, *name)); err != nil {
					bad.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(n.Load()), int(bad.Load()), nil
}

func askNet(at netip.AddrPort) (asked, failed int, err error) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, at.String())
	}}
	return askMany(func(name string) error {
		_, err := r.LookupNetIP(context.Background(), "ip4", name)
		var de *net.DNSError
		if errors.As(err, &de) && de.IsNotFound {
			return nil
		}
		return err
	})
}

func askMiekg(at netip.AddrPort) (asked, failed int, err error) {
	c := &miekg.Client{}
	return askMany(func(name string) error {
		m := new(miekg.Msg)
		m.SetQuestion(name, miekg.TypeA)
		m.SetEdns0(1232, false)
		_, _, err := c.Exchange(m, at.String())
		return err
	})
}
