// Package utp is a stream transport over datagrams: the micro transport protocol
// (BEP 29) with the congestion control LEDBAT (RFC 6817), which gives way to other
// traffic.
//
// An Endpoint uses one weir.PacketEndpoint and carries any number of connections,
// in and out, next to other protocols that share the port. A connection is a
// weir.Carrier, so its Transport keeps what every stream promises, and layers work on
// it as on TCP.
//
//	your Protocol, or layers
//	         ▲ │
//	     Transport             weir's own stream
//	         ▲ │
//	  conn: a weir.Carrier     order, acks, window, LEDBAT
//	         ▲ │
//	      Endpoint             ids, set-up, limits  ──▶ Config.Other
//	         ▲ │
//	 weir.PacketEndpoint       datagrams
//
// The files: packet.go has the wire format and no I/O, ledbat.go the congestion
// control, send.go and receive.go the two directions of a connection, conn.go its
// states, endpoint.go what connections share.
//
// Everything belongs to the goroutine of the loop. All time is the loop's.
package utp
