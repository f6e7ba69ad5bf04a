// Package load makes load and checks every byte that comes back.
//
// It runs on one locked thread over epoll, with bare system calls, so that its
// own cost is small and the same for every server:
//
//	closed loop   a connection's next message leaves when its last has come back
//	pipelined     the same with several messages under way
//	open loop     messages leave at a fixed rate, come what may
//	churn         connect, one message, close
//	relay         a stream through a relay, both ends here
//	first         sessions through a relay, one after another
//	sessions      sessions through a relay, several at one time
//	many          messages at a fixed rate, or none, over many relayed connections
//	datagrams     so many under way, to an echo server or through a relay
//
// Latencies in the open loop count from when a message should have left, not
// from when it did, so that a server that stalls does not hide its stall by
// holding up the load (coordinated omission).
package load

import "time"

// Kinds of load.
const (
	Echo  = "echo"
	Churn = "churn"
	Relay = "relay"
	First = "first"

	Sessions = "sessions"
	Many     = "many"

	Datagrams     = "datagrams"
	DatagramRelay = "datagram-relay"
)

// Spec is what a run does. The zero value of a field means none.
type Spec struct {
	Kind   string
	Addr   string        // of the server
	Conns  int           // connections; for Churn and Sessions, sessions at one time
	Size   int           // bytes of a message
	Depth  int           // messages under way on a connection, at least 1
	Rate   float64       // messages a second of the open loop; 0: closed
	Greedy int           // more connections that keep a MiB under way
	Warm   time.Duration // before what is counted
	Run    time.Duration // what is counted
	CPU    int           // the CPU to run on, -1: any
	PIDs   []int         // server processes, whose children count too
	Steps  bool          // of Echo and Sessions: wait for Go once every connection has had a message
	Memory bool          // of Many: the connections stay idle; wait for Go when a tenth is there
	Trunc  bool          // of Relay: the kernel drops what arrives, unchecked
	Burst  int           // of Datagrams: how many a flow sends at a time
	Least  uint64        // of Datagrams: how many must come back, if Run is not too short by far
	Join   bool          // of Datagrams: joined by the sender and for the receiver (UDP GSO and GRO)
}

// Result is what a run counted, during its Run time only.
type Result struct {
	Messages  uint64  // that came back complete; for Churn, First and Sessions, sessions
	All       uint64  // for Echo, Many, Datagrams and Sessions: messages in all since the connections were there
	Bytes     uint64  // that came back; for Relay, that came out
	Seconds   float64 // of the clock
	ServerCPU float64 // seconds, user and system
	LoadCPU   float64 // seconds, user and system
	P50       float64 // ns
	P90       float64
	P99       float64
	P999      float64
	Max       float64
	Late      uint64 // for the open loop: messages still missing a second after the end
}
