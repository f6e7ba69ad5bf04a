package endpoint

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-io/weir/certs"
	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/sink"
)

// tlsLayers returns the entries for TLS: one whose role follows the base, and
// one for each role where it must not.
func tlsLayers() []*Layer {
	return []*Layer{
		tlsLayer("tls", "TLS: the server on a listener, the client elsewhere", "8443+tls,cert=srv.pem,key=srv.key", Role.Server),
		tlsLayer("tls-server", "TLS as the server, on any base", "stdio+tls-server,cert=s.pem,key=s.key", func(Role) bool { return true }),
		tlsLayer("tls-client", "TLS as the client, on any base", "8443+tls-client,name=example.com", func(Role) bool { return false }),
	}
}

const tlsDoc = `Verification is on: a client checks that the certificate is signed by an authority it
trusts and is for the name it connects to. A stream that ends without a close_notify is
reported as truncated. The end of one direction alone is passed on, with TLS 1.2 too; a
server that may take it for a hang-up is told after its reply. Certificates are read
again when their files change.`

func tlsLayer(name, summary, example string, server func(Role) bool) *Layer {
	return &Layer{
		Name:    name,
		Summary: summary,
		Doc:     tlsDoc,
		Example: example,
		Options: []OptionDoc{
			{Name: "cert", Type: Path, Doc: "certificate chain in PEM, perhaps with its key; or a directory of them, chosen by name"},
			{Name: "key", Type: Path, Doc: "the certificate's key in PEM, not encrypted"},
			{Name: "ca", Type: Path, Doc: "client: authorities to trust instead of the system's, in PEM", Conflicts: []string{"insecure"}},
			{Name: "name", Type: Text, Doc: "client: the name to ask for and to verify, instead of the host's"},
			{Name: "insecure", Type: Flag, Doc: "client: verify nothing; anyone in between can read and change everything"},
			{Name: "client-ca", Type: Path, Doc: "server: require certificates of clients, signed by these authorities"},
			{Name: "allow-cn", Type: Text, Many: true, Doc: "accept only peers whose certificate has this common name", Conflicts: []string{"insecure"}},
			{Name: "allow-dns", Type: Text, Many: true, Doc: "or this DNS name; in *.example.com the * is any one label", Conflicts: []string{"insecure"}},
			{Name: "allow-uri", Type: Text, Many: true, Doc: "or this URI, such as a SPIFFE ID; a segment * matches any one, ** at the end any number", Conflicts: []string{"insecure"}},
			{Name: "alpn", Type: Text, Many: true, Doc: "offer or accept this protocol (ALPN), such as h2; a peer that has none of them is refused, and so is one without ALPN, unless http/1.1 is among them"},
			{Name: "min", Type: Choice("1.2", "1.3"), Doc: "the oldest version to speak; the default is 1.2"},
			{Name: "timeout", Type: Duration, Doc: "how long the handshake may take; the default is 10s"},
			{Name: "eof-wait", Type: Duration, Doc: "client: after the input has ended, tell the server once it has been silent for this long, because some hang up when told; the default is 30s, or 5s if weir serves many connections; weir's own servers are told at once"},
			{Name: "no-eof", Type: Flag, Doc: "do not tell the peer that the input has ended until the connection ends", Conflicts: []string{"eof-wait"}},
			{Name: "handshakes", Type: Int, Doc: "server: how many handshakes may be in progress at once, dealt out to the loops; the default is 1024 on each"},
			{Name: "workers", Type: Number(0, 64), Doc: "server: how many handshakes of each loop may compute in parallel with open connections; the default is 1; with 0, the connections wait for them"},
			{Name: "keylog", Type: Path, Doc: "append the session keys to this file, for Wireshark; with this file, all traffic can be decrypted"},
		},
		Check: func(p *Part, role Role) *Fault { return checkTLS(p, server(role)) },
		Describe: func(p *Part, role Role) string {
			if server(role) {
				return describeTLSServer(p)
			}
			return describeTLSClient(p)
		},
		Prepare: func(env *Env, p *Part, role Role) (Prepared, error) {
			if server(role) {
				return prepareTLSServer(env, p)
			}
			return prepareTLSClient(env, p)
		},
	}
}

func checkTLS(p *Part, server bool) *Fault {
	wrong, side := []string{"client-ca", "handshakes", "workers"}, "server"
	if server {
		wrong, side = []string{"ca", "name", "insecure", "eof-wait"}, "client"
	}
	for _, name := range wrong {
		if o := p.Option(name); o != nil {
			f := &Fault{Token: &o.Key, Problem: fmt.Sprintf("option %q is for a %s", name, side)}
			switch {
			case name == "ca":
				f.Hint = `did you mean "client-ca"?`
			case name == "client-ca":
				f.Hint = `did you mean "ca"?`
			case p.Name.Text == "tls":
				f.Hint = "tls is the server on what listens, and the client elsewhere; tls-" + side + " is always the " + side
			}
			return f
		}
	}
	switch {
	case server && !p.Has("cert"):
		return &Fault{Problem: "a TLS server needs a certificate", Hint: "add ,cert=FILE,key=FILE"}
	case p.Has("key") && !p.Has("cert"):
		return &Fault{Token: &p.Option("key").Key, Problem: "a key without its certificate", Hint: "add ,cert=FILE"}
	}
	for _, name := range []string{"allow-cn", "allow-dns", "allow-uri"} {
		if o := p.Option(name); server && o != nil && !p.Has("client-ca") {
			return &Fault{Token: &o.Key, Problem: name + " without authorities that vouch for the name", Hint: "add ,client-ca=FILE"}
		}
	}
	return nil
}

func describeTLSServer(p *Part) string {
	d := "TLS server with " + p.Value("cert")
	if p.Has("client-ca") {
		d += "; clients need a certificate signed by " + p.Value("client-ca")
		if r := tlsRules(p).String(); r != "" {
			d += ", for " + r
		}
	}
	return d + describeTLS(p)
}

func describeTLSClient(p *Part) string {
	d := "TLS client"
	if p.Has("insecure") {
		d += ", verifies NOTHING"
	} else {
		d += ", verifies "
		rules := tlsRules(p).String()
		switch {
		case p.Has("name"):
			d += p.Value("name")
		case rules != "":
			d += "the certificate"
		default:
			d += "the host's name"
		}
		if rules != "" {
			d += " for " + rules
		}
		if p.Has("ca") {
			d += " against " + p.Value("ca")
		} else {
			d += " against the system's authorities"
		}
	}
	if p.Has("cert") {
		d += "; shows " + p.Value("cert")
	}
	return d + describeTLS(p)
}

func describeTLS(p *Part) string {
	d := ""
	if a := p.Values("alpn"); len(a) > 0 {
		d += "; ALPN " + strings.Join(a, ", ")
	}
	if p.Has("min") {
		d += "; TLS " + p.Value("min") + " or newer"
	}
	if p.Has("eof-wait") {
		d += "; says that the input has ended after " + p.Value("eof-wait") + " of silence"
	}
	if p.Has("no-eof") {
		d += "; does not say when the input ends"
	}
	if p.Has("keylog") {
		d += "; session keys go to " + p.Value("keylog")
	}
	return d
}

func tlsRules(p *Part) certs.PeerRules {
	return certs.PeerRules{CommonNames: p.Values("allow-cn"), DNSNames: p.Values("allow-dns"), URIs: p.Values("allow-uri")}
}

// tlsConfig makes what both sides have in common.
func tlsConfig(env *Env, p *Part) (*tls.Config, []layer.TLSOption, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: p.Values("alpn")}
	if p.Value("min") == "1.3" {
		cfg.MinVersion = tls.VersionTLS13
	}
	if p.Has("keylog") {
		log, err := openSink(env, p.Value("keylog"), openLog, sink.Config{}) // handshakes must not wait for it
		if err != nil {
			return nil, nil, optionError(p, "keylog", err)
		}
		cfg.KeyLogWriter = log
		env.warn("keylog: the session keys go to " + p.Value("keylog") + ", with which all traffic can be decrypted")
	}
	var opts []layer.TLSOption
	if p.Has("no-eof") {
		opts = append(opts, layer.WithSilentEOF())
	}
	if p.Has("timeout") {
		opts = append(opts, layer.WithHandshakeTimeout(p.Duration("timeout")))
	}
	if p.Has("alpn") {
		opts = append(opts, layer.WithProtocolRequired())
	}
	return cfg, append(opts, layer.WithPeerRules(tlsRules(p))), nil
}

func (env *Env) certificates(p *Part) (*certs.Files, error) {
	key := ""
	if p.Has("key") {
		key = env.Path(p.Value("key"))
	}
	files, err := certs.NewFiles(env.Path(p.Value("cert")), key, func(err error) {
		env.warn("the certificate could not be read again, and the old one stays in use: " + err.Error())
	})
	if err != nil {
		option := "cert"
		var bad *certs.FileError
		noCertificate := errors.As(err, &bad) && bad.Problem == certs.NoCertificate
		if key != "" && fileOf(err) == key && !noCertificate { // both may name the same file
			option = "key"
		}
		return nil, optionError(p, option, err)
	}
	return files, nil
}

func (env *Env) authorities(p *Part, option string) (*certs.AuthorityFile, error) {
	file, err := certs.NewAuthorityFile(env.Path(p.Value(option)), func(err error) {
		env.warn(option + " could not be read again, and the old one stays in use: " + err.Error())
	})
	if err != nil {
		return nil, optionError(p, option, err)
	}
	return file, nil
}

// handshakeWorkers is how many handshake steps run off a server's loop by
// default: established connections are then not held up by new ones, however
// many there are.
const handshakeWorkers = 1

// By default, how long a client's server must have been silent before it is
// told that the input has ended: for a single connection, whose input comes
// from a person or a script and has ended for good, and for one of many, whose
// peer has in all likelihood closed.
const (
	replyFirst       = 30 * time.Second
	replyFirstOfMany = 5 * time.Second
)

func prepareTLSServer(env *Env, p *Part) (Prepared, error) {
	cfg, opts, err := tlsConfig(env, p)
	if err != nil {
		return nil, err
	}
	files, err := env.certificates(p)
	if err != nil {
		return nil, err
	}
	cfg.GetCertificate = files.GetCertificate
	if p.Has("client-ca") {
		ca, err := env.authorities(p, "client-ca")
		if err != nil {
			return nil, err
		}
		opts = append(opts, layer.WithClientAuthorities(ca))
	}
	if p.Has("handshakes") {
		opts = append(opts, layer.WithHandshakeCap(env.each(int(p.Int("handshakes")))))
	}
	workers := handshakeWorkers
	if p.Has("workers") {
		workers = int(p.Int("workers"))
	}
	opts = append(opts, layer.WithHandshakeWorkers(workers))
	return Always(layer.TLSServer(cfg, opts...)), nil
}

func prepareTLSClient(env *Env, p *Part) (Prepared, error) {
	cfg, opts, err := tlsConfig(env, p)
	if err != nil {
		return nil, err
	}
	silence := replyFirst
	if env.Serves {
		silence = replyFirstOfMany
	}
	if p.Has("eof-wait") {
		silence = p.Duration("eof-wait")
	}
	opts = append(opts, layer.WithReplyBeforeEOF(silence))
	// One cache serves all names: it keeps their sessions apart by itself.
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	if p.Has("cert") {
		files, err := env.certificates(p)
		if err != nil {
			return nil, err
		}
		cfg.GetClientCertificate = files.GetClientCertificate
	}
	if p.Has("ca") {
		ca, err := env.authorities(p, "ca")
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = ca.Pool()
	}
	name := p.Value("name")
	if name == "" {
		name = targetHost(p.target)
	}
	if p.Has("insecure") {
		cfg.InsecureSkipVerify = true
		env.warn("INSECURE: the certificate of " + targetOr(p.target) + " is not verified; anyone in between can read and change everything")
	}
	rules := slices.Concat(p.Values("allow-cn"), p.Values("allow-dns"), p.Values("allow-uri"))
	if name == "" && p.targetAsked {
		return func(asked Asked) layer.Layer {
			cfg := cfg.Clone()
			cfg.ServerName = targetHost(asked.To)
			return layer.TLS(cfg, opts...)
		}, nil
	}
	if name == "" && !p.Has("insecure") && len(rules) == 0 {
		return nil, fmt.Errorf("nothing says whose certificate to expect here: add ,name=NAME to +%s", p.Name.Text)
	}
	cfg.ServerName = name
	return Always(layer.TLS(cfg, opts...)), nil
}

// targetHost returns the host of a "host:port", as a certificate names it.
func targetHost(target string) string {
	host, _, ok := splitHostPort(target)
	if !ok {
		return ""
	}
	host = unbracket(host)
	host, _, _ = strings.Cut(host, "%") // a scope means something only on this machine
	return strings.TrimSuffix(host, ".")
}

func targetOr(target string) string {
	if target == "" {
		return "the peer"
	}
	return target
}
