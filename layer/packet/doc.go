// Package packet has layers for datagrams: what stands between an endpoint's socket and
// its protocol, and sees each datagram as a whole.
//
//	your PacketProtocol
//	     ▲ │
//	  PacketEndpoint        what Listen returns
//	     ▲ │
//	   a layer              e.g. Fault
//	     ▲ │
//	  PacketEndpoint        with a socket
//
// A layer is one per endpoint, and an endpoint that listens has many peers: what a
// stream's layer counts or draws for a connection, these count and draw for a flow,
// which is what passes between the endpoint and one peer's address. What is kept for
// flows is bounded; the one that was silent for longest is forgotten first.
//
// Nobody can make the sender of a datagram wait. So where a stream's layer would hold
// back its peer, these hold datagrams in bounded queues, drop what has no room, and
// count it: see Counts.
package packet
