package contract

import (
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-io/weir"
)

// shouter writes and keeps what comes back.
type shouter struct {
	weir.NopProtocol
	got    string
	failed *weir.ConnectError
}

func (a *shouter) ConnectionMade(t weir.Transport)      { _, _ = t.Write([]byte("over")) }
func (a *shouter) DataReceived(p []byte) (int, error)   { a.got += string(p); return len(p), nil }
func (a *shouter) ConnectFailed(err *weir.ConnectError) { a.failed = err }

// TestPathOptions: connections with a code point, on a device, by fast open and
// over several paths carry bytes both ways; a backend that lacks one of the
// first three says so instead of leaving it out.
func TestPathOptions(t *testing.T) {
	options := map[string]weir.TCPOption{
		"dscp": weir.WithDSCP(46), "device": weir.WithDevice("lo"), "fast open": weir.WithFastOpen(16), "multipath": weir.WithMultipath(),
	}
	for _, name := range weir.Backends() {
		for what, o := range options {
			t.Run(name+"/"+what, func(t *testing.T) {
				l, err := weir.NewLoop(weir.WithBackendName(name))
				if err != nil {
					t.Skip(err)
				}
				defer func() {
					if err := l.Close(); err != nil {
						t.Error(err)
					}
				}()
				ln, err := l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) }, o)
				if name == "portable" && what != "multipath" {
					if err == nil {
						t.Fatal("it was left out in silence")
					}
					ln, err = l.Listen("tcp", "127.0.0.1:0", func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
				}
				if err != nil {
					t.Fatal(err)
				}
				a := &shouter{}
				l.Connect("tcp", ln.Addr().String(), a, o)
				turns(t, l, "an answer, or a refusal", func() bool { return a.got == "over" || a.failed != nil })
				if refused := a.failed != nil; refused != (name == "portable" && what != "multipath") {
					t.Errorf("refused: %v", a.failed)
				}
				if a.failed != nil && a.failed.Attempts[0].Stage != weir.StageSocket {
					t.Error(a.failed)
				}
			})
		}
	}
}

// TestPacketDevice: an endpoint is bound to its device, and says so if it cannot be (R77).
func TestPacketDevice(t *testing.T) {
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		server, client := &packets{}, &packets{}
		at := endpoint(t, l, "udp4", server)
		e, err := l.ListenPacket("udp4", "0.0.0.0:0", client, weir.WithDevice("lo"))
		if l.Backend().Name == "portable" {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("on a backend that cannot: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		device, failed := "", error(nil)
		if err := e.Control(func(fd uintptr) {
			device, failed = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		}); err != nil || failed != nil || device != "lo" {
			t.Errorf("bound to %q, %v, %v", device, err, failed)
		}
		if err := e.SendTo([]byte("x"), at.Local()); err != nil {
			t.Fatal(err)
		}
		turns(t, l, "a datagram by the device", func() bool { return len(server.got) == 1 })
		if _, err := l.ListenPacket("udp4", "0.0.0.0:0", client, weir.WithDevice("nosuch0")); !errors.Is(err, syscall.ENODEV) {
			t.Errorf("a device that is not there: %v", err)
		}
	})
}

// TestBadOptions: an impossible option is an error of the call, with its reason.
func TestBadOptions(t *testing.T) {
	l, err := weir.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := l.Listen("tcp", "127.0.0.1:0", nil, weir.WithDSCP(64)); err == nil {
		t.Error("a code point of 64")
	}
	if _, err := l.Listen("tcp", "127.0.0.1:0", nil, weir.WithDevice("nosuch0")); err == nil || errors.Is(err, weir.ErrClosed) {
		t.Errorf("a device that is not there: %v", err)
	}
}
