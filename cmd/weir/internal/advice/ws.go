package advice

import (
	"errors"
	"net/url"
	"strings"

	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/layer/ws"
)

// showUpgrade says what to do about a refused upgrade to WebSocket: refused by the
// server of e or, without e, here.
func (f *Failure) showUpgrade(e *endpoint.Endpoint, err error) {
	var u *ws.UpgradeError
	if !errors.As(err, &u) {
		return
	}
	switch {
	case e == nil && u.Host != "":
		f.Next = "If that is a name of this server: add ,host=" + endpoint.Quote(u.Host) + " to +ws, or ,host=* for any."
	case e == nil && u.Origin != "":
		f.Next = "If that page may use this server: add ,origin=" + endpoint.Quote(u.Origin) + " to +ws."
	case e == nil:
	case u.Location != "":
		f.Next = nextForLocation(u.Location)
	case u.Status == 401:
		f.Next = "It wants to know who asks: add ,user=NAME,password=env:VARIABLE to +ws, or ,header=Authorization:env:VARIABLE."
	case u.Status == 403:
		f.Next = "Perhaps it wants another Host, an origin or a cookie: ,host= ,origin= and ,cookie= on +ws set them."
	case u.Status == 404:
		f.Next = "Perhaps the path is another: +ws:/PATH asks for it."
	case u.Status == 431:
		f.Next = "It does not accept heads that long: send less with ,cookie= and ,header=."
	case u.Status != 0 && u.Status != 101:
		f.Next = "Perhaps what listens there is no WebSocket server, or has it at another path: +ws:/PATH asks for it."
	case u.Status == 0:
		f.Next = "Perhaps what listens there is no WebSocket server, or wants tls in front: +tls+ws."
	}
}

// nextForLocation says how to connect to where a server's answer leads, if that can be
// typed as it is: a server's text must not become more than one word of a shell.
func nextForLocation(where string) string {
	u, err := url.Parse(where)
	if err != nil || strings.Trim(where, urlLetters) != "" {
		return "It sends its clients elsewhere."
	}
	path := u.EscapedPath()
	if path != "" {
		path = ":" + endpoint.Quote(path)
	}
	if u.Host == "" {
		return "It sends its clients to another path: write +ws" + path
	}
	port, layers := ":80", "+ws"
	switch strings.ToLower(u.Scheme) {
	case "https", "wss":
		port, layers = ":443", "+tls+ws"
	}
	host := u.Host
	if u.Port() == "" {
		host += port
	}
	return "It sends its clients elsewhere: to go there, write " + endpoint.Quote(host) + layers + path
}

const urlLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/%[]"
