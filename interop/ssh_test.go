package interop

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// TestSSH: crypto/ssh's client and server over netconn; a command whose input
// comes back, and a channel that is a transport again.
func TestSSH(t *testing.T) {
	onBackends(t, func(t *testing.T, l *weir.Loop) {
		ln := listen(t, l)
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		host, err := ssh.NewSignerFromKey(private)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- serveSSH(ln, host) }()

		c, chans, reqs, err := ssh.NewClientConn(dial(t, l, ln.Addr()), "host", &ssh.ClientConfig{
			User: "weir", Auth: []ssh.AuthMethod{ssh.Password("secret")}, HostKeyCallback: ssh.FixedHostKey(host.PublicKey()),
		})
		if err != nil {
			t.Fatal(err)
		}
		client := ssh.NewClient(c, chans, reqs)

		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		body := pattern(2 << 20)
		session.Stdin = bytes.NewReader(body)
		got, err := session.Output("cat")
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes came back of %d, %v", len(got), len(body), err)
		}

		overChannel(t, l, client, body)
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// overChannel attaches an SSH channel as a transport: the callback protocol on
// it sends body, half-closes and collects what comes back.
func overChannel(t *testing.T, l *weir.Loop, client *ssh.Client, body []byte) {
	t.Helper()
	ch, reqs, err := client.OpenChannel("echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(reqs)
	p := &collector{body: body, lost: make(chan error, 1)}
	if _, err := netconn.Call(within(t, 20*time.Second), l, func() (weir.Transport, error) {
		return netconn.Attach(l, ch, func(weir.Transport) weir.Protocol { return p })
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.lost:
		if err != nil || !bytes.Equal(p.got, body) {
			t.Errorf("over a channel %d bytes came back of %d, %v", len(p.got), len(body), err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the channel's transport was not lost")
	}
}

// collector sends body and its end, and keeps what is received.
type collector struct {
	body, got []byte
	lost      chan error
}

func (p *collector) ConnectionMade(t weir.Transport) {
	_, _ = t.Write(p.body)
	_ = t.WriteEOF()
}

func (p *collector) DataReceived(b []byte) (int, error) {
	p.got = append(p.got, b...)
	return len(b), nil
}

func (p *collector) ConnectionLost(err error) { p.lost <- err }

// PauseWriting keeps reading going while more is written than fits.
func (p *collector) PauseWriting()  {}
func (p *collector) ResumeWriting() {}

// serveSSH serves one connection: sessions whose command is cat, and channels
// that echo.
func serveSSH(ln net.Listener, host ssh.Signer) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{PasswordCallback: func(_ ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if string(password) != "secret" {
			return nil, errors.New("wrong password")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	_, chans, reqs, err := ssh.NewServerConn(c, config)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return err
		}
		if nc.ChannelType() == "session" {
			go func() {
				for r := range reqs {
					ok := r.Type == "exec"
					_ = r.Reply(ok, nil)
					if ok {
						_, _ = io.Copy(ch, ch)
						_, _ = ch.SendRequest("exit-status", false, make([]byte, 4))
						_ = ch.Close()
					}
				}
			}()
			continue
		}
		go ssh.DiscardRequests(reqs)
		go func() {
			_, _ = io.Copy(ch, ch)
			_ = ch.CloseWrite()
			_ = ch.Close()
		}()
	}
	return nil
}
