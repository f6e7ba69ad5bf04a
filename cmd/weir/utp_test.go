package main

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir"
)

// echoing sends back what arrives.
func echoing(t *testing.T) string {
	return server(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
}

// alive sends a byte through a connection and waits for it to come back.
func alive(t *testing.T, c net.Conn) {
	t.Helper()
	if err := write(c, "x"); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// TestUTP: a request and its reply over uTP, each direction ended by itself, plain and
// with a layer on top, on every backend (R52).
func TestUTP(t *testing.T) {
	for _, backend := range weir.Backends() {
		for _, layers := range []string{"", "+zstd"} {
			t.Run(backend+layers, func(t *testing.T) {
				t.Setenv("WEIR_BACKEND", backend)
				to := server(t, answer(strings.ToUpper))
				p := start(t, "utp-listen:127.0.0.1:0"+layers, to)
				request := strings.Repeat("the quick brown fox\n", 20_000)
				r := run(t, request, "-", "utp:"+p.listening()+layers)
				if r.code != 0 || r.out != strings.ToUpper(request) {
					t.Errorf("code %d, %d bytes, said %q", r.code, len(r.out), r.err)
				}
			})
		}
	}
}

// TestUTPRefused: where nothing listens, the failure says so and what to do.
func TestUTPRefused(t *testing.T) {
	p := start(t, "utp-listen:127.0.0.1:0,connections=1", echoing(t))
	at := p.listening()
	first := start(t, "tcp-listen:127.0.0.1:0", "utp:"+at)
	c := dial(t, first.listening())
	alive(t, c)
	r := run(t, "", "-", "utp:"+at) // the one place is taken
	if r.code != exitFailure || !strings.Contains(r.err, "refused") {
		t.Errorf("code %d, said %q", r.code, r.err)
	}
	// The listener says so too, and who was there.
	if l := p.line("refused 1 connection", 1); !strings.Contains(l, "there are 1, which is the bound") {
		t.Errorf("said %q", l)
	}
	if l := p.line("open #1", 1); !strings.Contains(l, "#1 127.0.0.1:") {
		t.Errorf("said %q, without the peer's address", l)
	}
}

// TestUTPPeers: what counts or chooses by a peer's address does so over uTP too.
func TestUTPPeers(t *testing.T) {
	a, b := utpPeer("192.0.2.1:7000"), utpPeer("192.0.2.2:7000")
	if key(a) == key(b) || key(a) != key(utpPeer("192.0.2.1:8000")) || key(a) != key(net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:80"))) {
		t.Error("the hash of a peer is not that of its address")
	}
	// +limit bounds the connections of one address.
	p := start(t, "utp-listen:127.0.0.1:0+limit:10,per-address=1", echoing(t))
	first := start(t, "tcp-listen:127.0.0.1:0", "utp:"+p.listening())
	alive(t, dial(t, first.listening()))
	if r := run(t, "x", "-", "utp:"+p.listening()); r.code == exitOK && r.out == "x" {
		t.Error("a second connection from one address was served")
	}
}

// utpPeer is a peer's address, as a connection has it.
type utpPeer string

func (utpPeer) Network() string            { return "utp" }
func (p utpPeer) String() string           { return string(p) }
func (p utpPeer) AddrPort() netip.AddrPort { return netip.MustParseAddrPort(string(p)) }

// TestUTPExplain: explain has the limits, and help both kinds.
func TestUTPExplain(t *testing.T) {
	r := call(t, "explain", "utp-listen:16881,connections=7,half-close=1h", "utp:host.example:1+tls")
	for _, want := range []string{"at most 7 connections", "256 from one address", "a silent peer is lost after 30s", "after 1h0m0s", "uTP"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is not in %q", want, r.out)
		}
	}
	if r := call(t, "help", "utp"); !strings.Contains(r.out, "LEDBAT") || r.code != 0 {
		t.Errorf("help says %q", r.out)
	}
}

// TestUTPShares: the connects of a program come from one port, unless each is to have
// its own.
func TestUTPShares(t *testing.T) {
	for option, ports := range map[string]int{"": 1, ",own-port": 5} {
		t.Run(option, func(t *testing.T) { fiveConnects(t, option, ports) })
	}
}

func fiveConnects(t *testing.T, option string, ports int) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	p := start(t, "tcp-listen:127.0.0.1:0", "utp:"+silent.LocalAddr().String()+option)
	for range 5 {
		dial(t, p.listening())
	}
	if err := silent.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ids, from := map[string]bool{}, map[string]bool{}
	for buf := make([]byte, 2000); len(ids) < 5; {
		n, peer, err := silent.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n >= 20 {
			ids[string(buf[2:4])] = true
			from[peer.String()] = true
		}
	}
	if len(from) != ports {
		t.Errorf("5 connects came from %v", from)
	}
}
