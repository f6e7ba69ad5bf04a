// Package proxy has layers for proxies: SOCKS 4, 4a and 5 and HTTP's CONNECT,
// as clients and as servers, and the headers of the PROXY protocol. Each speaks
// only at the beginning of a stream, and then steps aside: from there on it
// costs nothing.
//
//	             client                     server
//	SOCKS        SOCKS5, SOCKS4, SOCKS4a    SOCKSServer
//	CONNECT      Connect                    ConnectServer
//	PROXY        HeaderOut                  HeaderIn
//
// A client makes the proxy connect to a destination; if the proxy refuses, the
// cause is an *Error. A server passes what its client asked for to the protocol
// above as a Request, which that protocol accepts or refuses. Serve is a server
// that connects to where its clients ask to go; Access says where they may go,
// and Users who may ask.
//
// Options are of two kinds, so that one in the wrong place does not compile:
// ClientOption for clients and ServerOption for servers. Everything about the
// PROXY protocol has Header in its name.
//
// Everything here belongs to the loop's goroutine, except that any goroutine
// may make layers and use Users and Access.
package proxy
