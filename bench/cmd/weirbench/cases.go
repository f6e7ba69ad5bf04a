package main

import (
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir/bench/internal/load"
)

// A testCase is one load that every peer gets.
type testCase struct {
	Name   string
	Title  string
	spec   load.Spec
	loops  int
	frame  int  // the server answers each message of this many bytes separately
	aim    bool // it has targets, so it gets more rounds
	count  bool // system calls and allocations too
	memory bool // also the memory of an idle connection
	quick  bool // in quick runs too
	unit   unit
}

// unit is the unit of a case's cost.
type unit int

const (
	perMessage      unit = iota // µs of server CPU for a message or session
	perGiB                      // s of server CPU for a GiB
	byLatency                   // nothing but latencies
	perDatagram                 // µs of server CPU
	perTwoDatagrams             // the same, of two for each that comes back
	perIdle                     // bytes of the process for an idle connection
)

func (u unit) String() string {
	return [...]string{"CPU, µs per message", "CPU, s per GiB", "p50, µs", "CPU, µs per datagram", "CPU, µs per datagram", "memory, bytes"}[u]
}

// cases lists everything in the order in which it is run.
func cases(warm, run time.Duration) []testCase {
	echo := func(conns, size, depth int) load.Spec {
		return load.Spec{Kind: load.Echo, Conns: conns, Size: size, Depth: depth, Warm: warm, Run: run}
	}
	open := func(conns int, rate float64, greedy int) load.Spec {
		s := echo(conns, 64, 1)
		s.Rate, s.Greedy = rate, greedy
		return s
	}
	crowd := echo(9000, 64, 1)
	crowd.Run *= 3 // or hardly any connection has a second message
	return []testCase{
		{Name: "echo-1", aim: true, Title: "Echo, 1 connection, 64 B", spec: echo(1, 64, 1), loops: 1},
		{Name: "echo-64", aim: true, Title: "Echo, 64 connections, 64 B", spec: echo(64, 64, 1), loops: 1, count: true, quick: true},
		{Name: "echo-1000", aim: true, Title: "Echo, 1,000 connections, 64 B", spec: echo(1000, 64, 1), loops: 1, count: true, quick: true},
		{Name: "echo-9000", Title: "Echo, 9,000 connections, 64 B", spec: crowd, loops: 1, memory: true},
		{Name: "echo-64-4k", Title: "Echo, 64 connections, 4 KiB", spec: echo(64, 4096, 1), loops: 1},
		{Name: "echo-64-64k", Title: "Echo, 64 connections, 64 KiB", spec: echo(64, 65536, 1), loops: 1, count: true},
		{Name: "pipelined", Title: "Echo, 64 connections, 64 B, 16 messages under way on each", spec: echo(64, 64, 16), loops: 1, count: true, quick: true},
		{Name: "frames", Title: "The same, each message answered by itself", spec: echo(64, 64, 16), loops: 1, frame: 64, count: true, quick: true},
		{Name: "two-loops", Title: "Echo, 1,000 connections, 64 B, two loops on both CPUs, which the load shares", spec: echo(1000, 64, 1), loops: 2},
		{Name: "open-1000", Title: "Open loop, 20,000 messages/s over 1,000 connections, 64 B", spec: open(1000, 20000, 0), loops: 1},
		{Name: "greedy", Title: "The same at 5,000/s over 200, beside one greedy connection (64 KiB messages, 1 MiB under way)", spec: open(200, 5000, 1), loops: 1, unit: byLatency},
		{Name: "churn", Title: "Connect, one message, close; 16 at a time", spec: load.Spec{Kind: load.Churn, Conns: 16, Size: 64, Warm: warm, Run: run}, loops: 1},
		{Name: "relay", aim: true, Title: "Relay, one stream, checked", spec: load.Spec{Kind: load.Relay, Conns: 1, Size: 1 << 18, Warm: warm, Run: run}, loops: 1, unit: perGiB, quick: true},
		{Name: "relay-trunc", Title: "Relay, one stream, dropped by the receiver's kernel", spec: load.Spec{Kind: load.Relay, Conns: 1, Size: 1 << 18, Warm: warm, Run: run, Trunc: true}, loops: 1, unit: perGiB},
		{Name: "relay-first", Title: "Relay, short sessions one after another: connect, 64 B through and back", spec: load.Spec{Kind: load.First, Size: 64, Warm: warm, Run: run}, loops: 1, unit: byLatency},
		{Name: "sessions", aim: true, Title: "Relay, short sessions, 16 at a time: connect, 100 B through and back, close", spec: load.Spec{Kind: load.Sessions, Conns: 16, Size: 100, Warm: warm, Run: run}, loops: 1, count: true, quick: true},
		{Name: "many-relays", aim: true, Title: "Relay, 2,000 connections with 5,000 messages/s in all, 100 B", spec: load.Spec{Kind: load.Many, Conns: 2000, Size: 100, Rate: 5000, Warm: warm, Run: 2 * run}, loops: 1, count: true},
		{Name: "relay-idle", Title: "Relay, idle connections: the memory that the process grows by from the 300th to the 3,000th", spec: load.Spec{Kind: load.Many, Conns: idleConns, Size: 100, Memory: true}, loops: 1, memory: true, unit: perIdle},
	}
}

// idleConns is how many relayed connections are idle at one time. Each takes io.Copy's relay six
// descriptors, its own and those of two pipes, and a process has 20,000 (raiseLimit).
const idleConns = 3000

func (c *testCase) peers() []peer {
	switch c.spec.Kind {
	case load.Datagrams:
		return datagramPeers
	case load.DatagramRelay:
		return slices.DeleteFunc(slices.Clone(datagramRelays), func(p peer) bool { return p.extra && c.spec.Conns > 1 })
	}
	if c.spec.Kind == load.Many {
		return manyPeers()
	}
	if c.relays() {
		return relayPeers
	}
	if c.frame > 0 {
		return echoPeers
	}
	return slices.DeleteFunc(slices.Clone(echoPeers), func(p peer) bool { return p.extra })
}

// buf is the size of a read buffer: the size that someone who knows the
// messages would choose.
func (c *testCase) buf() int { return min(max(c.spec.Size, 4096), 65536) }

func (c *testCase) relays() bool {
	return c.spec.Kind == load.Relay || c.spec.Kind == load.First || c.spec.Kind == load.Sessions || c.spec.Kind == load.Many || c.spec.Kind == load.DatagramRelay
}

// floor is the peer that the ratios refer to.
func (c *testCase) floor() string { return c.peers()[0].name }

// chosen reports whether a comma-separated list of names includes name, by its
// whole or by its beginning up to a dash. An empty list includes all.
func chosen(list, name string) bool {
	if list == "" {
		return true
	}
	for _, w := range strings.Split(list, ",") {
		if name == w || strings.HasPrefix(name, w+"-") {
			return true
		}
	}
	return false
}
