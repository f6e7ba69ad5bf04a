package layer_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/internal/layertest"
)

// plainAlerter is the wire of a client that answers the server's TLS 1.3 flight
// with an alert in the clear, as OpenSSL's clients do when they refuse the
// certificate.
type plainAlerter struct {
	net.Conn
	alert []byte
}

func (p *plainAlerter) Write(b []byte) (int, error) {
	if b[0] == 22 { // its hello
		return p.Conn.Write(b)
	}
	if _, err := p.Conn.Write(p.alert); err != nil {
		return 0, err
	}
	_ = p.Conn.Close()
	return 0, net.ErrClosed
}

// TestAlertInClear: a client that refuses the certificate before it has its
// keys is reported as such, not as a bad record MAC; something that only looks
// like it is not.
func TestAlertInClear(t *testing.T) {
	a := newAuthority(t)
	cert := a.issue(issue{cn: "a.test"})
	for _, c := range []struct {
		alert []byte
		want  string
	}{
		{[]byte{21, 3, 3, 0, 2, 2, 48}, "the peer sent the alert unknown certificate authority: it does not accept our certificate"},
		{[]byte{21, 3, 3, 0, 2, 2, 42}, "the peer sent the alert bad certificate: it does not accept our certificate"},
		{[]byte{21, 3, 3, 0, 3, 2, 48, 0}, "bad record MAC"},
		{[]byte{23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, "bad record MAC"},
	} {
		r := newRig(t)
		l, err := r.loop.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return &layertest.Ear{} }, layer.TLSServer(&tls.Config{Certificates: []tls.Certificate{cert}})))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return
			}
			defer conn.Close()
			_ = tls.Client(&plainAlerter{conn, c.alert}, &tls.Config{InsecureSkipVerify: true}).Handshake() //nolint:gosec // it is refused
		}()
		r.until("the failure", func() bool { return len(r.reported) > 0 })
		<-done
		var alert *layer.AlertError
		if err := r.reported[0]; !strings.Contains(err.Error(), c.want) || errors.As(err, &alert) != strings.Contains(c.want, "alert") {
			t.Errorf("% x: %v", c.alert, err)
		}
	}
}

// TestRenegotiation: a client that wants another handshake within a TLS 1.2
// connection is refused, with an error in plain words.
func TestRenegotiation(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip(err)
	}
	a := newAuthority(t)
	r := newRig(t)
	e := &layertest.Ear{}
	l, err := r.loop.Listen("tcp", "127.0.0.1:0", layer.Server(func(weir.Transport) weir.Protocol { return e }, layer.TLSServer(&tls.Config{Certificates: []tls.Certificate{a.issue(issue{cn: "a.test"})}})))
	if err != nil {
		t.Fatal(err)
	}
	client := exec.Command(openssl, "s_client", "-connect", l.Addr().String(), "-tls1_2")
	in, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Process.Kill(); _ = client.Wait() }()
	r.until("the connection", func() bool { return e.Made == 1 })
	if _, err := in.Write([]byte("R\n")); err != nil {
		t.Fatal(err)
	}
	r.until("the end", func() bool { return e.Lost > 0 })
	if !errors.Is(e.Err, layer.ErrRenegotiation) || strings.Contains(e.Err.Error(), "*tls.") {
		t.Errorf("lost with %v", e.Err)
	}
}
