package endpoint

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
)

// wsLayers returns the entries for WebSocket: one whose role follows the base,
// and one for each role where it must not.
func wsLayers() []*Layer {
	return []*Layer{
		wsLayer("ws", "WebSocket: the server on a listener, the client elsewhere", "8080+ws:/tunnel", Role.Server),
		wsLayer("ws-server", "WebSocket as the server, on any base", "stdio+ws-server", func(Role) bool { return true }),
		wsLayer("ws-client", "WebSocket as the client, on any base", "stdio+ws-client:/chat,host=example.com", func(Role) bool { return false }),
	}
}

const wsDoc = `Bytes leave in binary messages, or with text in text messages; the bytes of all messages
that arrive are the stream. A WebSocket cannot end one direction alone. Two weirs do so
nevertheless; with any other peer, after the input has ended, the connection stays open
for the reply until nothing has arrived for eof-wait, and is then closed in both
directions. A server on loopback refuses requests whose Host is neither a loopback name
nor one of host=, so that no page of another site can reach it. For wss write +tls+ws.`

// urlPath is the type of a URL's path.
var urlPath = &Type{Name: "path", Doc: "a path that begins with /", check: func(s string) *Fault {
	if s == "" || s[0] != '/' || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' }) {
		return &Fault{Problem: fmt.Sprintf("bad path %q", s), Hint: "it begins with / and has no spaces"}
	}
	return nil
}}

func wsLayer(name, summary, example string, server func(Role) bool) *Layer {
	return &Layer{
		Name:    name,
		Summary: summary,
		Doc:     wsDoc,
		Arg:     Arg{Name: "path", Type: urlPath, Optional: true},
		Example: example,
		Options: []OptionDoc{
			{Name: "host", Type: Text, Many: true, Doc: "client: the Host to send, instead of the one connected to; server: a Host to accept, or * for any; the default is any, but on loopback only loopback names"},
			{Name: "origin", Type: Text, Many: true, Doc: "server: a page's origin to accept besides the server's own, or * for all; client: the origin to send"},
			{Name: "protocol", Type: Text, Many: true, Doc: "a subprotocol to offer or accept, best first"},
			{Name: "header", Type: headerType, Many: true, Doc: "client: a header to send, NAME:VALUE; NAME:env:VARIABLE and NAME:file:PATH read the value from there"},
			{Name: "cookie", Type: Secret, Doc: "client: cookies to send, as a=1; b=2"},
			{Name: "user", Type: Text, Doc: "client: the user name of basic authentication"},
			{Name: "password", Type: Secret, Doc: "client: its password"},
			{Name: "text", Type: Flag, Doc: "send text messages; input that is not UTF-8 ends the connection"},
			{Name: "compress", Type: Flag, Doc: "offer or accept permessage-deflate"},
			{Name: "ping", Type: Duration, Doc: "ping a peer that has been silent for this long, and end if it does not answer within the same time again"},
			{Name: "eof-wait", Type: Duration, Doc: "if the peer is not weir: after the input has ended, close both directions when nothing has arrived for this long; the default is 5s"},
			{Name: "eof-close", Type: Flag, Doc: "if the peer is not weir: close both directions as soon as the input has ended, without waiting for a reply", Conflicts: []string{"eof-wait", "no-eof"}},
			{Name: "no-eof", Type: Flag, Doc: "if the peer is not weir: stay open when the input has ended, until the peer closes", Conflicts: []string{"eof-wait"}},
			{Name: "close-wait", Type: Duration, Doc: "how long to wait for the peer's answer to a close; the default is 2s"},
			{Name: "max", Type: SizeUpTo(1 << 30), Doc: "the longest compressed message; the default is 16m"},
			{Name: "message-timeout", Type: Duration, Doc: "how long a compressed message may take to arrive; the default is 1m"},
			{Name: "max-head", Type: sizeBetween(1<<10, 128<<10), Doc: "the longest head of a request or a response; the default is 64k"},
			{Name: "timeout", Type: Duration, Doc: "how long the upgrade may take; the default is 10s"},
		},
		Check: func(p *Part, role Role) *Fault { return checkWS(p, server(role)) },
		Describe: func(p *Part, role Role) string {
			path := p.ArgText()
			if server(role) {
				if path == "" {
					path = "every path"
				}
				return "WebSocket server of " + path
			}
			if path == "" {
				path = "/"
			}
			return "WebSocket client, asks for " + path
		},
		Prepare: func(env *Env, p *Part, role Role) (Prepared, error) {
			if server(role) {
				c := wsConfig(p)
				c.Hosts, c.GuardLoopback, c.Origins = p.Values("host"), true, p.Values("origin")
				return Always(ws.Server(c)), nil
			}
			return prepareWSClient(env, p)
		},
	}
}

// wsConfig makes what both sides have in common.
func wsConfig(p *Part) ws.Config {
	c := ws.Config{
		Path: p.ArgText(), Subprotocols: p.Values("protocol"), Compress: p.Has("compress"), Text: p.Has("text"),
		PingEvery: p.Duration("ping"), MaxMessage: int(p.Size("max")), MessageTimeout: p.Duration("message-timeout"),
		MaxHead: int(p.Size("max-head")), Timeout: p.Duration("timeout"), EOFWait: p.Duration("eof-wait"), CloseTimeout: p.Duration("close-wait"),
	}
	switch {
	case p.Has("eof-close"):
		c.EOFWait = 1
	case p.Has("no-eof"):
		c.EOFWait = -1
	}
	return c
}

func prepareWSClient(env *Env, p *Part) (Prepared, error) {
	c := wsConfig(p)
	for _, o := range p.Values("origin") {
		c.Header = append(c.Header, [2]string{"Origin", o})
	}
	fields, err := wsFields(env, p)
	if err != nil {
		return nil, err
	}
	c.Header = append(c.Header, fields...)
	c.Host = p.Value("host")
	overTLS := p.overTLS
	switch {
	case c.Host != "":
	case p.targetAsked:
		return func(asked Asked) layer.Layer {
			c := c
			c.Host = ws.HostOf(asked.To, overTLS)
			return ws.Client(c)
		}, nil
	case p.target != "":
		c.Host = ws.HostOf(p.target, overTLS)
	}
	return Always(ws.Client(c)), nil
}

// headerFields returns the fields of a request that header options ask for.
func headerFields(env *Env, p *Part) (fields [][2]string, err error) {
	for _, o := range p.Values("header") {
		name, value, _ := strings.Cut(o, ":")
		if value = strings.TrimLeft(value, " "); isReference(value) {
			if value, err = env.reference("header="+name, value); err != nil {
				return nil, err
			}
		}
		fields = append(fields, [2]string{name, value})
	}
	return fields, checkFields(fields)
}

// checkFields checks values that were read from elsewhere.
func checkFields(fields [][2]string) error {
	for _, f := range fields {
		if strings.ContainsFunc(f[1], func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return fmt.Errorf("the value of the header %q has a line break or another control character, which cannot be sent", f[0])
		}
	}
	return nil
}

// wsFields returns the fields of a request that options ask for.
func wsFields(env *Env, p *Part) ([][2]string, error) {
	fields, err := headerFields(env, p)
	if err != nil {
		return nil, err
	}
	if p.Has("cookie") {
		v, err := env.Secret(p, "cookie")
		if err != nil {
			return nil, err
		}
		fields = append(fields, [2]string{"Cookie", v})
	}
	if p.Has("user") {
		v, err := env.Secret(p, "password")
		if err != nil {
			return nil, err
		}
		fields = append(fields, [2]string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(p.Value("user")+":"+v))})
	}
	return fields, checkFields(fields)
}

func checkWS(p *Part, server bool) *Fault {
	user, password := p.Option("user"), p.Option("password")
	for _, name := range []string{"header", "cookie", "user", "password"} {
		if o := p.Option(name); o != nil && server {
			return &Fault{Token: &o.Key, Problem: fmt.Sprintf("option %q is for a client", name)}
		}
	}
	switch {
	case !server && len(p.Values("host")) > 1:
		return &Fault{Token: &p.Option("host").Key, Problem: "a client asks for one host"}
	case user != nil && password == nil:
		return &Fault{Token: &user.Key, Problem: "a user name without a password", Hint: "add password=env:NAME or password=file:PATH"}
	case password != nil && user == nil:
		return &Fault{Token: &password.Key, Problem: "a password without a user name", Hint: "add user=NAME"}
	case user != nil && strings.Contains(user.Value.Text, ":"):
		return &Fault{Token: user.Value, Problem: "a user name with a colon", Hint: "basic authentication (RFC 7617) does not allow one"}
	}
	return nil
}

// headerType is the type of a field of a request, NAME:VALUE.
var headerType = &Type{Name: "name:value", Doc: "a field's name, a colon, and its value, or env:NAME or file:PATH to read it from", secret: true, check: checkHeader}

func checkHeader(s string) *Fault {
	name, value, ok := strings.Cut(s, ":")
	token := func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	}
	switch low := strings.ToLower(name); {
	case !ok:
		return &Fault{Problem: "a header without a colon", Hint: "write it NAME:VALUE, such as X-Version:3"}
	case name == "" || strings.ContainsFunc(name, token):
		return &Fault{Problem: fmt.Sprintf("bad header name %q", name), Hint: "letters, digits and - (RFC 9110, 5.1)"}
	case low == "host":
		return &Fault{Problem: "the Host has an option of its own", Hint: "write host=NAME"}
	case low == "sec-websocket-protocol":
		return &Fault{Problem: "subprotocols have an option of their own", Hint: "write protocol=NAME"}
	case strings.HasPrefix(low, "sec-websocket-"), low == "upgrade", low == "connection", low == "content-length", low == "transfer-encoding", low == "expect", low == "te", low == "trailer":
		return &Fault{Problem: fmt.Sprintf("the header %q belongs to the upgrade", name), Hint: "leave it out"}
	case (low == "authorization" || low == "proxy-authorization" || low == "cookie") && !isReference(strings.TrimLeft(value, " ")):
		return &Fault{
			Problem: "a secret must not be on the command line, where others can read it",
			Hint:    "name where to read it: " + name + ":env:NAME or " + name + ":file:PATH",
		}
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return &Fault{Problem: "a control character in the value of a header"}
	}
	return nil
}

// isReference reports whether a value says where to read the actual value.
func isReference(s string) bool {
	return strings.HasPrefix(s, "env:") && len(s) > len("env:") || strings.HasPrefix(s, "file:") && len(s) > len("file:")
}
