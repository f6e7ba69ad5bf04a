package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameTable serves names on port 53: known.test leads here, no other name exists.
type nameTable struct {
	silent atomic.Bool
	missed chan string // names whose IPv4 addresses were asked for while it was silent
}

func serveNamesAt(t *testing.T, at string) *nameTable {
	t.Helper()
	c, err := net.ListenPacket("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	s := &nameTable{missed: make(chan string, 1000)}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var q dnsmessage.Message
			if q.Unpack(buf[:n]) != nil || len(q.Questions) != 1 {
				continue
			}
			name := strings.ToLower(q.Questions[0].Name.String())
			if s.silent.Load() {
				if q.Questions[0].Type == dnsmessage.TypeA {
					select {
					case s.missed <- name:
					default:
					}
				}
				continue
			}
			m := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
			switch {
			case name != "known.test.":
				m.RCode = dnsmessage.RCodeNameError
			case q.Questions[0].Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1},
					Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
				}}
			}
			if b, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(b, from)
			}
		}
	}()
	t.Cleanup(func() { _ = c.Close() })
	return s
}

// inNetworkOfOwn runs the calling test once more, in a process with a network and
// with an /etc/resolv.conf of its own, and reports whether this is that process.
func inNetworkOfOwn(t *testing.T, resolv string) bool {
	t.Helper()
	if os.Getenv("WEIR_TEST_NETWORK") != t.Name() {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "WEIR_TEST_NETWORK="+t.Name())
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		leash(cmd)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err != nil && !errors.As(err, &exit):
			t.Skipf("no network of its own: %v", err)
		case err != nil:
			t.Errorf("%s", out)
		case strings.Contains(string(out), "--- SKIP"):
			t.Skipf("%s", out)
		}
		return false
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Skipf("ip: %v: %s", err, out)
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte(resolv), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(file, "/etc/resolv.conf", "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("/etc/resolv.conf: %v", err)
	}
	return true
}

// askProxy asks a SOCKS5 proxy for a name and reports the code of its reply.
func askProxy(t *testing.T, proxy, name string, port int) byte {
	t.Helper()
	c := dial(t, proxy)
	defer c.Close()
	request := "\x05\x01\x00\x05\x01\x00\x03" + string([]byte{byte(len(name))}) + name + string([]byte{byte(port >> 8), byte(port)})
	reply := make([]byte, 4)
	if err := write(c, request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, reply); err != nil {
		t.Fatal(err)
	}
	return reply[3]
}

// TestNameServersSilent: when no name server answers, this is reported as such,
// and once; a proxy continues to use the known addresses, and works as before when
// they answer again (N3, S13).
func TestNameServersSilent(t *testing.T) {
	if !inNetworkOfOwn(t, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n") {
		return
	}
	s := serveNamesAt(t, "127.0.0.1:53")
	addr := server(t, answer(strings.ToUpper))
	port := serverPort(t, addr)
	far := start(t, "tcp-listen:127.0.0.1:0+socks5", "dial")
	strict := start(t, "tcp-listen:127.0.0.1:0+socks5", "dial", "--stale", "0")
	for _, p := range []*process{far, strict} {
		patiently(t, "answer", func() bool { return askProxy(t, p.listening(), "known.test", port) == 0 })
	}
	// A busy machine may have been silent for a second already.
	const silence = "the name servers do not answer: 127.0.0.1:53"
	before := strings.Count(far.said(), silence)
	s.silent.Store(true)
	for missed := false; !missed; { // until its time is up
		if code := askProxy(t, far.listening(), "known.test", port); code != 0 {
			t.Fatalf("what was known leads nowhere: code %d", code)
		}
		select {
		case name := <-s.missed:
			missed = name == "known.test."
		default:
		}
	}
	for askProxy(t, strict.listening(), "known.test", port) == 0 {
		continue // its second is not over
	}
	strict.line("cannot connect to known.test:", 1)
	if code := askProxy(t, far.listening(), "new.test", port); code != 4 {
		t.Errorf("a name that cannot be found: code %d", code)
	}
	far.line(silence, before+1)
	far.line("cannot connect to new.test:", 1)
	far.line("name server 127.0.0.1:53: no server answered in time", 1)
	if said := far.said(); strings.Contains(said, "name not found") {
		t.Errorf("it said\n%s", said)
	}
	p := start(t, "-", "new.test:1")
	if code := p.end(); code != exitFailure || !strings.Contains(p.said(), "cannot connect to new.test:1: the name servers do not answer") {
		t.Errorf("code %d, it said\n%s", code, p.said())
	}
	if said := far.said(); strings.Count(said, silence) != before+1 {
		t.Errorf("it said\n%s", said)
	}
	s.silent.Store(false)
	patiently(t, "answer that there is no such name", func() bool {
		if code := askProxy(t, far.listening(), "other.test", port); code != 4 {
			t.Errorf("code %d", code)
		}
		far.line("cannot connect to other.test:", 1)
		return strings.Contains(far.said(), "name not found")
	})
	far.line("the name servers answer again", before+1)
}

func serverPort(t *testing.T, addr string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Port
}

// TestNamesSummary: questions that no server answers are counted.
func TestNamesSummary(t *testing.T) {
	nowhere := dialUDP(t, everyName(t)).LocalAddr().String() // it takes nothing from others
	p := start(t, "dns-listen:127.0.0.1:0", "udp:"+nowhere)
	if r := call(t, "dns", "a.test", "A", "--server", p.listening()); r.code != exitFailure {
		t.Errorf("%+v", r)
	}
	patiently(t, "failure of both questions", func() bool { // it is asked twice, and gives up later
		p.signal(syscall.SIGQUIT)
		return strings.Contains(p.said(), "2 questions, 2 failed")
	})
	p.signal(os.Interrupt)
	if code := p.end(); code != exitOK {
		t.Errorf("code %d", code)
	}
	p.line("done 2 questions, 2 failed", 1)
}
