package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// The benchmark of TLS (-tls) is a run of its own, with its own page: it
// measures relays that terminate TLS, and what handshakes do to other
// connections.

// tlsPeer is a server of TLS.
type tlsPeer struct {
	name  string
	build string
	prog  string
	side  bool // it answers questions about its memory
	argv  func(s start) []string
	kind  string // of the load, if it is not the case's
}

// tlsSpec and tlsResult are those of cmd/tlsload.
type tlsSpec struct {
	Kind, CA  string
	Conns     int
	Few       int
	Warm, Run time.Duration
	Nice      int
}

type tlsResult struct {
	Count     uint64
	Bytes     uint64
	Seconds   float64
	ServerCPU float64
	P50       float64
	P99       float64
	Max       float64
	Suite     string
}

// tlsCase is one figure for every peer.
type tlsCase struct {
	Name, Title, Unit string
	spec              tlsSpec
	peers             []tlsPeer
	rounds            int
	cost              func(tlsSample) float64
	run               func(*bench, *tlsCase, tlsPeer, *tlsSample) error
}

// tlsSample is one peer's figures in one round.
type tlsSample struct {
	Round  int
	Result tlsResult
	Memory *memory     `json:",omitempty"`
	Stall  *tlsStalled `json:",omitempty"`
	Error  string      `json:",omitempty"`
}

// tlsRow is one peer in one case.
type tlsRow struct {
	Peer    string
	Cost    spread
	ToStd   spread // of the standard library's in the same round
	Samples []tlsSample
}

type tlsCaseResult struct {
	Name, Title, Unit string
	Rows              []tlsRow
}

// tlsReport is what tls.json holds.
type tlsReport struct {
	Date, Took string
	Machine    machine
	Versions   []string
	Skipped    []string
	Cases      []tlsCaseResult
}

const tlsServer, tlsStd = "servers/tls", "servers/stdtls"

// tlsFiles are in the bench's directory.
func tlsFiles(dir string) (cert, key, both string) {
	return filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"), filepath.Join(dir, "both.pem")
}

func tlsArgs(more ...string) func(start) []string {
	return func(s start) []string {
		cert, key, _ := tlsFiles(s.dir)
		a := append([]string{"-addr", s.addr, "-cert", cert, "-key", key}, more...)
		if s.target != "" {
			a = append(a, "-target", s.target)
		}
		return a
	}
}

// tlsRelays terminate TLS in front of a plain backend.
var tlsRelays = []tlsPeer{
	{name: "std", build: tlsStd, side: true, argv: tlsArgs()},
	{name: "weir-epoll", build: tlsServer, side: true, argv: tlsArgs("-backend", "epoll")},
	{name: "weir-uring", build: tlsServer, side: true, argv: tlsArgs("-backend", "uring")},
	{name: "cmd-weir", build: weirCommand, argv: func(s start) []string {
		cert, key, _ := tlsFiles(s.dir)
		return []string{"tcp-listen:" + s.addr + "+tls,cert=" + cert + ",key=" + key, "tcp:" + s.target, "--quiet", "--loops", strconv.Itoa(max(s.loops, 1))}
	}},
	{name: "stunnel", prog: "stunnel4", argv: stunnelTLS},
	{name: "haproxy", prog: "haproxy", argv: haproxyTLS},
	{name: "nginx", prog: "nginx", argv: nginxTLS},
}

// tlsFloor is the least work that a decrypting relay can do in Go: AES and
// system calls, without TLS.
var tlsFloor = tlsPeer{name: "floor", build: "servers/floortls", side: true, argv: tlsArgs(), kind: "up-sealed"}

// tlsEchoes are echo servers.
var tlsEchoes = []tlsPeer{
	{name: "std", build: tlsStd, side: true, argv: tlsArgs()},
	{name: "weir-epoll", build: tlsServer, side: true, argv: tlsArgs("-backend", "epoll")},
	{name: "weir-epoll, a worker", build: tlsServer, side: true, argv: tlsArgs("-backend", "epoll", "-workers", "1")},
	{name: "weir-uring", build: tlsServer, side: true, argv: tlsArgs("-backend", "uring")},
}

func stunnelTLS(s start) []string {
	cert, key, _ := tlsFiles(s.dir)
	conf := filepath.Join(s.dir, "stunnel.conf")
	write(conf, fmt.Sprintf("foreground = yes\nsyslog = no\ndebug = 3\npid =\n[s]\naccept = %s\nconnect = %s\ncert = %s\nkey = %s\n", s.addr, s.target, cert, key))
	return []string{conf}
}

func haproxyTLS(s start) []string {
	_, _, both := tlsFiles(s.dir)
	return haproxyRelay(s, "", s.addr+" ssl crt "+both)
}

func nginxTLS(s start) []string {
	cert, key, _ := tlsFiles(s.dir)
	return nginxRelay(s, fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3;", cert, key), s.addr+" ssl")
}

// tlsCertify writes a certificate of its own authority.
func tlsCertify(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "server.test"}, DNSNames: []string{"server.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	cert, keyFile, both := tlsFiles(dir)
	for path, text := range map[string][]byte{cert: certPEM, keyFile: keyPEM, both: slices.Concat(certPEM, keyPEM)} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// tlsLoad starts a load and returns it with the address it wants relays to
// connect to.
func (b *bench) tlsLoad(spec tlsSpec) (*process, string, error) {
	spec.CA, _, _ = tlsFiles(b.tmp)
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, "", err
	}
	path, err := b.build.program("cmd/tlsload")
	if err != nil {
		return nil, "", err
	}
	ld, err := spawn(loadCPU(), path, string(text))
	if err != nil {
		return nil, "", err
	}
	var hello struct{ Backend string }
	if err := ld.object(&hello, 10*time.Second); err != nil {
		ld.end()
		return nil, "", err
	}
	return ld, hello.Backend, nil
}

// tlsStart starts a server and waits until it listens.
func (b *bench) tlsStart(p tlsPeer, target string) (*process, string, error) {
	return b.server(peer{name: p.name, build: p.build, prog: p.prog, side: p.side, argv: p.argv}, &testCase{loops: 1}, target)
}

// tlsMeet tells a load about its server.
func tlsMeet(ld, srv *process, addr string) error {
	text, err := json.Marshal(map[string]any{"Addr": addr, "PIDs": []int{srv.pid()}})
	if err != nil {
		return err
	}
	return ld.say(string(text))
}

// tlsRelay is a round of a load through a relay.
func tlsRelay(b *bench, c *tlsCase, p tlsPeer, s *tlsSample) error {
	spec := c.spec
	if p.kind != "" {
		spec.Kind = p.kind
	}
	ld, target, err := b.tlsLoad(spec)
	if err != nil {
		return err
	}
	defer ld.end()
	srv, addr, err := b.tlsStart(p, target)
	if err != nil {
		return err
	}
	defer srv.end()
	if err := tlsMeet(ld, srv, addr); err != nil {
		return err
	}
	if err := ld.object(&s.Result, c.spec.Warm+c.spec.Run+20*time.Second); err != nil {
		return err
	}
	if s.Result.Count+s.Result.Bytes == 0 {
		return fmt.Errorf("nothing came through")
	}
	return nil
}

// tlsIdle is the memory that idle connections take.
func tlsIdle(b *bench, c *tlsCase, p tlsPeer, s *tlsSample) error {
	ld, target, err := b.tlsLoad(c.spec)
	if err != nil {
		return err
	}
	defer ld.end()
	if c.Name == "idle-echo" {
		target = ""
	}
	srv, addr, err := b.tlsStart(p, target)
	if err != nil {
		return err
	}
	defer srv.end()
	if err := tlsMeet(ld, srv, addr); err != nil {
		return err
	}
	read := func() (memoryReading, error) {
		if err := ld.object(&s.Result, 60*time.Second); err != nil {
			return memoryReading{}, err
		}
		time.Sleep(idleTime) // this long is what is measured
		return readMemory(srv, peer{side: p.side})
	}
	before, err := read()
	if err != nil {
		return err
	}
	if err := ld.say("go"); err != nil {
		return err
	}
	after, err := read()
	if err != nil {
		return err
	}
	s.Memory = after.since(before, c.spec.Conns-c.spec.Few)
	return nil
}

// tlsStalled is how other connections fare while handshakes begin and never end.
type tlsStalled struct {
	Quiet, Flood, Held tlsResult // before, while they come, and while they stay
	Seconds            float64   // that it took to open them
	RSS, Heap          float64   // bytes for each of them; Heap with stacks, of peers in Go
}

// ratio is the p99 under the flood to the quiet one.
func (s *tlsStalled) ratio() float64 { return s.Flood.P99 / s.Quiet.P99 }

const quietTime = time.Second

// tlsStall is a round of stalled handshakes.
func tlsStall(b *bench, c *tlsCase, p tlsPeer, s *tlsSample) error {
	srv, addr, err := b.tlsStart(p, "")
	if err != nil {
		return err
	}
	defer srv.end()
	quiet, _, err := b.tlsLoad(tlsSpec{Kind: "quiet", Conns: 4})
	if err != nil {
		return err
	}
	defer quiet.end()
	if err := tlsMeet(quiet, srv, addr); err != nil {
		return err
	}
	flood, _, err := b.tlsLoad(c.spec)
	if err != nil {
		return err
	}
	defer flood.end()
	count := func(r *tlsResult) error {
		if err := quiet.say("count"); err != nil {
			return err
		}
		return quiet.object(r, 20*time.Second)
	}
	var dropped tlsResult
	if err := count(&dropped); err != nil { // it answers when it has connected
		return err
	}
	st := &tlsStalled{}
	if err := quiet.runFor(quietTime); err != nil {
		return err
	}
	if err := count(&st.Quiet); err != nil {
		return err
	}
	before, err := readMemory(srv, peer{side: p.side})
	if err != nil {
		return err
	}
	if err := count(&dropped); err != nil { // of the reading, which collects garbage
		return err
	}
	if err := tlsMeet(flood, srv, addr); err != nil {
		return err
	}
	var opened tlsResult
	if err := flood.object(&opened, 60*time.Second); err != nil {
		return err
	}
	st.Seconds = opened.Seconds
	if err := count(&st.Flood); err != nil {
		return err
	}
	after, err := readMemory(srv, peer{side: p.side})
	if err != nil {
		return err
	}
	m := after.since(before, c.spec.Conns)
	st.RSS, st.Heap = m.RSS, m.Heap+m.Stack
	if err := count(&dropped); err != nil {
		return err
	}
	if err := quiet.runFor(quietTime); err != nil {
		return err
	}
	if err := count(&st.Held); err != nil {
		return err
	}
	s.Stall, s.Result = st, st.Flood
	return nil
}
