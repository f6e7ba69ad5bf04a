package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// TCPInfoOf asks the kernel about a TCP socket.
func TCPInfoOf(fd int) (TCPInfo, error) {
	i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return TCPInfo{}, err
	}
	return TCPInfo{
		RTT:         time.Duration(i.Rtt) * time.Microsecond,
		RTTVar:      time.Duration(i.Rttvar) * time.Microsecond,
		MSS:         int(i.Snd_mss),
		Window:      int(i.Snd_cwnd),
		InFlight:    int(i.Unacked),
		Lost:        int(i.Lost),
		Backoff:     int(i.Backoff),
		Resent:      int(i.Total_retrans),
		ReceiveMSS:  int(i.Rcv_mss),
		PathMTU:     int(i.Pmtu),
		LastReceive: time.Duration(i.Last_data_recv) * time.Millisecond,
		LastSend:    time.Duration(i.Last_data_sent) * time.Millisecond,
	}, nil
}
