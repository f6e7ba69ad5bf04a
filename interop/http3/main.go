// HTTP3 serves a directory, and fetches from such a server, over HTTP/3: quic-go, unchanged,
// over weir's datagrams. The server has one socket for each loop of a group, and the system
// gives each client to one of them. In the directory interop:
//
//	go run ./http3 -listen 127.0.0.1:4433 -dir .. &
//	go run ./http3 -insecure https://127.0.0.1:4433/README.md
//	echo hello | go run ./http3 -insecure -post https://127.0.0.1:4433/echo
//
// SIGTERM and Ctrl-C shut the server down gracefully: requests under way are answered.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/netconn"
)

// patience is how long requests under way may take once the server has to end.
const patience = 8 * time.Second

// loopHeader tells a client which of the server's loops answers.
const loopHeader = "Weir-Loop"

func main() {
	listen := flag.String("listen", "", "serve here, such as 127.0.0.1:4433")
	loops := flag.Int("loops", 2, "how many loops serve")
	dir := flag.String("dir", ".", "what to serve; /echo sends back what is posted to it")
	cert := flag.String("cert", "", "the server's certificate file (default: one for this run, which no one trusts)")
	key := flag.String("key", "", "its key file")
	ca := flag.String("ca", "", "file with the authorities that the client trusts (default: the system's)")
	insecure := flag.Bool("insecure", false, "the client trusts any certificate")
	post := flag.Bool("post", false, "the client posts standard input")
	verbose := flag.Bool("v", false, "the client says who answers, on standard error")
	flag.Parse()
	err := errors.New("either -listen ADDRESS or one URL is needed; -h shows all options")
	ctx, forget := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, forget) // a second signal ends the program at once
	switch {
	case *listen != "" && flag.NArg() == 0:
		err = serve(ctx, *listen, *loops, *dir, *cert, *key)
	case *listen == "" && flag.NArg() == 1:
		var body io.Reader
		if *post {
			body = os.Stdin
		}
		config := &tls.Config{InsecureSkipVerify: *insecure}
		if config.RootCAs, err = authorities(*ca); err == nil {
			err = fetch(ctx, flag.Arg(0), body, config, *verbose)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "http3:", err)
		os.Exit(1)
	}
}

// serve serves until ctx ends, with a socket and a server of HTTP/3 on each of some loops.
func serve(ctx context.Context, address string, loops int, dir, cert, key string) error {
	config, err := certificate(cert, key)
	if err != nil {
		return err
	}
	group, err := weir.NewGroup(loops)
	if err != nil {
		return err
	}
	defer group.Close()
	conns, err := sockets(group, address)
	if err != nil {
		return err
	}
	fmt.Printf("serving %s at https://%s on %d loops\n", dir, conns[0].LocalAddr(), loops)

	ran, served := make(chan error, 1), make(chan error, loops)
	go func() { ran <- group.Run() }()
	var servers []*http3.Server
	for i, conn := range conns {
		s := &http3.Server{Handler: handler(i, dir), TLSConfig: http3.ConfigureTLSConfig(config)}
		servers = append(servers, s)
		go func() { served <- s.Serve(conn) }()
	}
	select { // any of these ends it
	case <-ctx.Done():
	case err := <-served:
		served <- err // for below
	case err := <-ran:
		return err
	}
	within, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, s := range servers {
		err = errors.Join(err, s.Shutdown(within)) // the handlers return,
	}
	for range servers {
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	for _, c := range conns {
		_ = c.Close() // and what they wrote leaves
	}
	group.Shutdown(patience)
	return errors.Join(err, <-ran)
}

// sockets opens one socket on each loop of the group, all at one address. The system gives
// what comes from one client's address always to the same one. (A client that changes its
// address may come to another one, which does not know it; it then has to connect again.)
func sockets(group *weir.Group, address string) ([]*netconn.PacketConn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var opts []weir.PacketOption
	if len(group.Loops()) > 1 {
		opts = append(opts, weir.WithReusePort())
	}
	var conns []*netconn.PacketConn
	for _, l := range group.Loops() {
		c, err := netconn.ListenPacket(l, "udp", address, opts...)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
		// Port 0 was the system's choice, for all of them.
		address = net.JoinHostPort(host, strconv.Itoa(c.LocalAddr().(*net.UDPAddr).Port))
	}
	return conns, nil
}

// handler is what the server on a loop answers.
func handler(loop int, dir string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body) // what fails is the client's connection
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(loopHeader, strconv.Itoa(loop))
		mux.ServeHTTP(w, r)
	})
}

// fetch asks for a URL, or posts body to it, and writes what comes to standard output.
func fetch(ctx context.Context, url string, body io.Reader, config *tls.Config, verbose bool) error {
	loop, err := weir.NewLoop()
	if err != nil {
		return err
	}
	defer loop.Close()
	ran := make(chan error, 1)
	go func() { ran <- loop.Run() }()
	err = roundTrip(ctx, loop, url, body, config, verbose)
	loop.Stop()
	return errors.Join(err, <-ran)
}

func roundTrip(ctx context.Context, loop *weir.Loop, url string, body io.Reader, config *tls.Config, verbose bool) error {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	d := &dialer{loop: loop}
	defer d.close()
	rt := &http3.Transport{TLSClientConfig: config, Dial: d.dial}
	defer rt.Close()
	res, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if verbose {
		fmt.Fprintf(os.Stderr, "%s %s, loop %s\n", res.Proto, res.Status, res.Header.Get(loopHeader))
	}
	if _, err := io.Copy(os.Stdout, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// dialer connects quic-go to servers. Each has a socket of its own, which is connected: if no
// one listens there, the first read says so.
type dialer struct {
	loop *weir.Loop
	mu   sync.Mutex
	ends []func() // of the sockets
}

// close closes the sockets, once quic-go has said good-bye.
func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, end := range d.ends {
		end()
	}
}

func (d *dialer) dial(ctx context.Context, address string, config *tls.Config, qc *quic.Config) (*quic.Conn, error) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	conn, err := netconn.Call(ctx, d.loop, func() (*netconn.PacketConn, error) {
		return netconn.ConnectPacket(d.loop, "udp", to.String())
	})
	if err != nil {
		return nil, err
	}
	t := &quic.Transport{Conn: conn}
	d.mu.Lock()
	d.ends = append(d.ends, func() { _, _ = t.Close(), conn.Close() })
	d.mu.Unlock()
	return t.DialEarly(ctx, to, config, qc)
}

// authorities are those of a file; nil, the system's, for "".
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // crypto/tls has it so
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return pool, nil
}
