// Package layer puts something between a transport and a protocol: TLS, a limit, a
// log, or, from the packages below it, a proxy's handshake, WebSocket, compression. A layer is a protocol to what is below it
// and gives what is above it a transport, so layers stack to any depth, over
// every transport and every backend.
//
//	your Protocol
//	     ▲ │
//	 Transport        the same contract as a socket's: marks, tails, half-close
//	     ▲ │
//	   a layer        Base, and what the layer does to the bytes
//	     ▲ │
//	 Transport        of another layer, or of a socket
//
// A program that connects gives Connect the protocol that Client makes; one that
// listens gives Listen the factory that Server makes; one that already has a
// connection puts layers on it with Start:
//
//	l.Connect("tcp", "db:5432", layer.Client(p, layer.TLS(cfg)))
//	l.Listen("tcp", ":443", layer.Server(factory, layer.Idle(time.Minute), layer.TLSServer(cfg)))
//
// The protocol above hears of its connection when every layer has agreed with
// its peer (behaviour 48 and the following). Where one cannot, there never is a
// connection: a client's protocol gets ConnectFailed with the stage, a server's
// loop a report.
//
// Everything here belongs to the loop's goroutine, except the making of layers,
// which any goroutine may do before they are used.
package layer
