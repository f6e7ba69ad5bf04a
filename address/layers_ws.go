package address

import (
	"fmt"
	"strings"

	"github.com/weir-io/weir/layer/ws"
)

// wsLayers are the entries for WebSocket: a role that follows the base, and one
// of each for where it shall not.
func wsLayers() []*Layer {
	return []*Layer{
		wsLayer("ws", "WebSocket: the server on a listener, else the client", "8080+ws:/tunnel", Role.Server),
		wsLayer("ws-server", "WebSocket as the server, on any base", "stdio+ws-server", func(Role) bool { return true }),
		wsLayer("ws-client", "WebSocket as the client, on any base", "stdio+ws-client:/chat,host=example.com", func(Role) bool { return false }),
	}
}

const wsDoc = `Bytes leave in binary messages, and those of all messages that come are the stream. A
WebSocket has no end of one direction: between two weirs there is one all the same, and
elsewhere a connection stays until both sides have ended. Put tls in front for wss.`

// urlPath is a path of a URL.
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
			{Name: "host", Type: Text, Doc: "client: the host to ask for, instead of the one that is connected to"},
			{Name: "origin", Type: Text, Many: true, Doc: "server: a page's origin to accept besides the server's own, or * for all; client: the one to state"},
			{Name: "protocol", Type: Text, Many: true, Doc: "a subprotocol to offer or to know, best first"},
			{Name: "compress", Type: Flag, Doc: "offer or accept permessage-deflate"},
			{Name: "ping", Type: Duration, Doc: "ping a peer that was silent for so long, and end if it does not answer as long again"},
			{Name: "max", Type: Size, Doc: "the longest compressed message; the default is 16m"},
			{Name: "timeout", Type: Duration, Doc: "how long the upgrade may take; the default is 10s"},
		},
		Check: func(p *Part, role Role) *Fault {
			if o := p.Option("host"); o != nil && server(role) {
				return &Fault{Token: &o.Key, Problem: `option "host" is for a client`}
			}
			return nil
		},
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
		Prepare: func(_ *Env, p *Part, role Role) (Prepared, error) {
			c := ws.Config{
				Path: p.ArgText(), Host: p.Value("host"), Subprotocols: p.Values("protocol"), Compress: p.Has("compress"),
				PingEvery: p.Duration("ping"), MaxMessage: int(min(p.Size("max"), 1<<30)), Timeout: p.Duration("timeout"),
			}
			if server(role) {
				c.Origins = p.Values("origin")
				return Always(ws.Server(c)), nil
			}
			if c.Host == "" {
				c.Host = strings.TrimSuffix(strings.TrimSuffix(p.target, ":80"), ":443")
			}
			for _, o := range p.Values("origin") {
				c.Header = append(c.Header, [2]string{"Origin", o})
			}
			return Always(ws.Client(c)), nil
		},
	}
}
