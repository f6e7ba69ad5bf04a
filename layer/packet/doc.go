// Package packet has layers for datagrams. A layer is between an endpoint's socket and
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
// There is one layer per endpoint, and an endpoint that listens has many peers: what a
// stream's layer counts or draws for a connection, these layers count and draw for a flow,
// which is everything between the endpoint and one peer's address. What is kept for
// flows is bounded; the flow that has been silent for longest is forgotten first.
//
// No one can make the sender of a datagram wait. So where a stream's layer would hold
// back its peer, these layers hold datagrams in bounded queues, drop those without room, and
// count them: see Counts.
package packet
