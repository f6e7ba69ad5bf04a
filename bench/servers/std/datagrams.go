package main

import (
	"net"
	"net/netip"

	"github.com/weir-io/weir/bench/internal/side"
)

const packetMost = 1 << 16 // bytes of a datagram

func datagrams(cfg side.Config) {
	at, err := net.ResolveUDPAddr("udp4", cfg.Addr)
	side.Check(err)
	c, err := net.ListenUDP("udp4", at)
	side.Check(err)
	go side.Serve(c.LocalAddr().String())
	if cfg.Target != "" {
		relayDatagrams(c, cfg)
		return
	}
	side.Check(c.SetReadBuffer(side.Buffers))
	buf := make([]byte, packetMost)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		side.Check(err)
		_, _ = c.WriteToUDPAddrPort(buf[:n], from)
	}
}

// relayDatagrams has a connected socket and a goroutine for each peer.
func relayDatagrams(c *net.UDPConn, cfg side.Config) {
	target, err := net.ResolveUDPAddr("udp4", cfg.Target)
	side.Check(err)
	flows := map[netip.AddrPort]*net.UDPConn{}
	buf := make([]byte, packetMost)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		side.Check(err)
		up := flows[from]
		if up == nil {
			up, err = net.DialUDP("udp4", nil, target)
			side.Check(err)
			flows[from] = up
			go answers(c, up, from)
		}
		_, _ = up.Write(buf[:n])
	}
}

func answers(c, up *net.UDPConn, peer netip.AddrPort) {
	buf := make([]byte, packetMost)
	for {
		n, err := up.Read(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort(buf[:n], peer)
	}
}
