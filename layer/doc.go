// Package layer puts something between a transport and a protocol: TLS, a
// limit, a log, or, from its subpackages, a proxy's handshake, WebSocket,
// compression. A layer is a protocol to what is below it and gives a transport
// to what is above it, so layers stack to any depth, over every transport and
// every backend.
//
//	your Protocol
//	     ▲ │
//	 Transport        the same contract as a socket's: marks, tails, half-close
//	     ▲ │
//	   a layer        Base, and what the layer does to the bytes
//	     ▲ │
//	 Transport        of another layer, or of a socket
//
// A program that connects passes the protocol made by Client to Connect; one
// that listens passes the factory made by Server to Listen; one that already
// has a connection puts layers on it with Start:
//
//	l.Connect("tcp", "db:5432", layer.Client(p, layer.TLS(cfg)))
//	l.Listen("tcp", ":443", layer.Server(factory, layer.Idle(time.Minute), layer.TLSServer(cfg)))
//
// The protocol above learns of its connection when every layer has agreed with
// its peer (behaviour 48 and the following). If one cannot, there never is a
// connection: a client's protocol gets ConnectFailed with the stage, and a
// server's loop gets a report.
//
// Everything here belongs to the loop's goroutine, except that any goroutine
// may make layers before they are used.
package layer
