package process

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/layer"
	"golang.org/x/sys/unix"
)

// twoPipes is the other side's view of two pipes, as a child has it that speaks TLS.
type twoPipes struct{ r, w *os.File }

func (p twoPipes) Read(b []byte) (int, error)     { return p.r.Read(b) }
func (p twoPipes) Write(b []byte) (int, error)    { return p.w.Write(b) }
func (p twoPipes) Close() error                   { return errors.Join(p.r.Close(), p.w.Close()) }
func (twoPipes) LocalAddr() net.Addr              { return &weir.FileAddr{Net: "pipe", Name: "pipe"} }
func (p twoPipes) RemoteAddr() net.Addr           { return p.LocalAddr() }
func (twoPipes) SetDeadline(time.Time) error      { return nil }
func (twoPipes) SetReadDeadline(time.Time) error  { return nil }
func (twoPipes) SetWriteDeadline(time.Time) error { return nil }

// TestInputClosedTLS: the end of a child's input leaves its output alone above TLS too: what
// it writes arrives, with the end that it gives it, whatever waits to be sent to it.
func TestInputClosedTLS(t *testing.T) {
	s := httptest.NewTLSServer(nil) // its certificate
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	client := &tls.Config{RootCAs: roots, ServerName: "example.com"}
	server := &tls.Config{Certificates: s.TLS.Certificates}
	onBackends(t, func(r *rig) {
		for _, backlog := range []int{0, 1 << 20} {
			var in, back [2]*os.File // what the child reads, and writes
			var err, err2 error
			in[0], in[1], err = os.Pipe()
			back[0], back[1], err2 = os.Pipe()
			if err := errors.Join(err, err2); err != nil {
				r.t.Fatal(err)
			}
			out := &lateReply{sink: sink{keep: true}, backlog: backlog}
			proto := layer.Client(out, layer.TLS(client))
			ours := [2]int{dupFD(r.t, back[0]), dupFD(r.t, in[1])}
			if _, err := r.l.AttachPair(ours[0], ours[1], "pipes", func(weir.Transport) weir.Protocol { return proto }, weir.WithSeparateEnds()); err != nil {
				r.t.Fatal(err)
			}
			_, _ = back[0].Close(), in[1].Close() // they are copied
			release, done := make(chan struct{}), make(chan error, 1)
			go func() {
				pipes := twoPipes{in[0], back[1]}
				c := tls.Server(pipes, server)
				_, err := io.WriteString(c, "early\n")
				err = errors.Join(err, pipes.r.Close())
				<-release
				_, err2 := io.WriteString(c, "late\n")
				done <- errors.Join(err, err2, c.CloseWrite(), pipes.w.Close())
			}()
			r.until("the end of writing", func() bool { return out.failed != nil || out.lost })
			if !errors.Is(out.failed, weir.ErrReaderGone) {
				r.t.Errorf("WriteFailed(%v)", out.failed)
			}
			if _, err := out.t.Write([]byte("x")); !errors.Is(err, weir.ErrReaderGone) {
				r.t.Errorf("Write: %v", err)
			}
			close(release)
			r.until("the end of the output", func() bool { return out.lost })
			if err := <-done; err != nil {
				r.t.Error(err)
			}
			if string(out.got) != "early\nlate\n" || !out.eof {
				r.t.Errorf("backlog %d: got %q, end of stream %v, lost with %v", backlog, out.got, out.eof, out.err)
			}
		}
	})
}

func dupFD(t *testing.T, f *os.File) int {
	t.Helper()
	raw, err := f.SyscallConn()
	fd := -1
	if err == nil {
		bad := raw.Control(func(n uintptr) { fd, err = dup(int(n)) })
		err = errors.Join(err, bad)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3) }
