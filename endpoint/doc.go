// Package endpoint turns endpoint strings into endpoints: what to listen on,
// what to connect to, and which layers to put on top.
//
//	endpoint = base *( "+" layer )
//	part     = name [ ":" arg ] *( "," key [ "=" value ] )
//
//	localhost:3000+tls,ca=corp.pem,retry=30s
//	└────base────┘ └──────────layer────────┘
//
// The leftmost part is nearest the wire, the rightmost is what the other side
// sees; the base decides whether a layer is a server or a client. An option
// belongs to the part it is written on. A port comes after the last colon, so
// IPv6 literals need no brackets. Only %, + and , are escaped, as %25, %2B and
// %2C.
//
// Short forms of a base: 8080 listens on loopback, :8080 on every interface,
// host:8080 dials, - is standard input and output, /path dials a UNIX socket.
// Any other word must be a kind in the table.
//
// Parsing is strict and does no I/O: anything unknown, missing, doubled or left
// over is an *Error that points at the character and suggests the nearest right
// word. A Table, which is a plain value, holds all that is known; Default
// returns this package's. An Endpoint is then opened with Listen or Connect,
// which use nothing but weir's exported functions.
package endpoint
