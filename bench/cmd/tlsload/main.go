// Command tlsload makes one load of TLS connections and prints what it counted.
// The benchmark starts it, one process for each measurement:
//
//	tlsload SPEC    SPEC is a spec in JSON
//
// It prints {"Backend": addr}, where a relay must connect to, then reads a line
// with the server's {"Addr": addr, "PIDs": [...]}. The client is the standard
// library's, whatever the server is.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-io/weir/bench/internal/load"
)

// spec is what to do.
type spec struct {
	Kind  string        // up, up-sealed, down, both, sessions, resumed, idle, quiet, stall
	CA    string        // file of the certificate that the server must have
	Conns int           // connections; for sessions and resumed, at one time
	Few   int           // of idle: wait for a line when so many are there
	Warm  time.Duration // before what is counted
	Run   time.Duration // what is counted
	Nice  int           // how much of the CPU to leave to others
	Addr  string
	PIDs  []int
}

// result is what was counted.
type result struct {
	Count     uint64  // sessions, messages or connections
	Bytes     uint64  // that arrived
	Seconds   float64 // of the clock
	ServerCPU float64 // seconds, user and system
	P50       float64 // ns, of sessions and messages
	P99       float64
	Max       float64
	Suite     string // the version and the cipher suite agreed on
}

// loader is one run.
type loader struct {
	spec
	in      *bufio.Scanner
	cfg     *tls.Config
	backend net.Listener
	full    atomic.Uint64 // handshakes that did not resume a session, with a cache
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tlsload:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: tlsload SPEC")
	}
	l := &loader{in: bufio.NewScanner(os.Stdin)}
	if err := json.Unmarshal([]byte(os.Args[1]), &l.spec); err != nil {
		return err
	}
	if l.Nice > 0 {
		if err := leave(l.Nice); err != nil {
			return err
		}
	}
	pem, err := os.ReadFile(l.CA)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("no certificate in %s", l.CA)
	}
	l.cfg = &tls.Config{RootCAs: pool, ServerName: "server.test"}
	if l.backend, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return err
	}
	if err := say(map[string]string{"Backend": l.backend.Addr().String()}); err != nil {
		return err
	}
	if !l.in.Scan() {
		return errors.New("no server came")
	}
	if err := json.Unmarshal(l.in.Bytes(), &l.spec); err != nil {
		return err
	}
	var res result
	switch l.Kind {
	case "up", "up-sealed", "down", "both":
		res, err = l.bulk()
	case "resumed":
		l.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		res, err = l.sessions()
	case "sessions":
		res, err = l.sessions()
	case "idle":
		return l.idle()
	case "quiet":
		return l.quiet()
	case "stall":
		return l.stall()
	default:
		err = fmt.Errorf("no load of kind %q", l.Kind)
	}
	if err != nil {
		return err
	}
	return say(res)
}

// leave lowers the priority of all existing threads; later ones inherit it.
func leave(by int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		var id int
		if _, err := fmt.Sscan(t.Name(), &id); err != nil {
			return err
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, by); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) dial() (*tls.Conn, error) {
	conn, err := net.DialTimeout("tcp4", l.Addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	c := tls.Client(conn, l.cfg)
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, err
	}
	if err := c.Handshake(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

func suite(c *tls.Conn) string {
	s := c.ConnectionState()
	return tls.VersionName(s.Version) + ", " + tls.CipherSuiteName(s.CipherSuite) + ", " + s.CurveID.String()
}

// window is the counted time: the server's CPU and the clock.
type window struct {
	pids []int
	cpu  int64
	from time.Time
}

func (l *loader) open() (w window, err error) {
	w.pids = load.Tree(l.PIDs)
	w.from = time.Now()
	w.cpu, err = load.CPUTime(w.pids...)
	return w, err
}

func (w window) shut(r *result) error {
	cpu, err := load.CPUTime(w.pids...)
	r.Seconds = time.Since(w.from).Seconds()
	r.ServerCPU = float64(cpu-w.cpu) / 1e9
	return err
}

func say(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(b))
	return err
}
