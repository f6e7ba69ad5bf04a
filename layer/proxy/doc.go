// Package proxy has the layers of proxies: SOCKS 4, 4a and 5 and HTTP's CONNECT, as
// clients and as servers, and the headers of the PROXY protocol. Each speaks at the
// beginning of a stream only, and then steps aside: from there on it costs nothing.
//
//	             client                     server
//	SOCKS        SOCKS5, SOCKS4, SOCKS4a    SOCKSServer
//	CONNECT      Connect                    ConnectServer
//	PROXY        HeaderOut                  HeaderIn
//
// A client has the proxy connect to a destination; what the proxy refuses is an
// *Error. A server hands what its client asked for to the protocol above as a
// Request, which accepts or refuses it. Serve is a server that connects to where its
// clients ask to go; where they may go is said by Access, and who may ask by Users.
//
// Options are of two kinds, so that one in the wrong place does not compile:
// ClientOption for clients and ServerOption for servers. What is about the PROXY
// protocol has Header in its name.
//
// Everything here belongs to the loop's goroutine, except the making of layers, and
// Users and Access, which any goroutine may use.
package proxy
