package sys

import "time"

// TCPInfo is what the system knows of a TCP connection; weir.TCPInfo says what the fields
// mean.
type TCPInfo struct {
	RTT         time.Duration
	RTTVar      time.Duration
	MSS         int
	Window      int
	InFlight    int
	Lost        int
	Backoff     int
	Resent      int
	ReceiveMSS  int
	PathMTU     int
	LastReceive time.Duration
	LastSend    time.Duration
}
