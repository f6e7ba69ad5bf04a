package endpoint

import "net"

func dnsListenKind() *Kind {
	listen := udpListenKind()
	return &Kind{
		Name:    "dns-listen",
		Role:    Listen,
		Summary: "answer DNS queries over UDP and TCP",
		Doc: "Answers come from the hosts file, a cache, and the other side: resolver, which asks the\n" +
			"system's name servers, udp:ADDR:53, or a connection to a name server, such as\n" +
			"9.9.9.9:853+tls. --stale sets how long expired answers are used while no server answers.\n" +
			"A port alone listens on loopback only, :port on every interface. Only loopback, private\n" +
			"and link-local addresses get answers.",
		Arg:     Arg{Name: "[host:]port", Type: ListenPort},
		Options: []OptionDoc{familyDoc()},
		Example: "dns-listen:5353",
		Check: func(p *Part) *Fault {
			host, _, _ := splitHostPort(p.ArgText())
			return checkFamilies(p, unbracket(host))
		},
		Describe: func(p *Part) string {
			host, port, _ := splitHostPort(p.ArgText())
			switch {
			case loopback(p.ArgText()):
				return "answers DNS queries on port " + port + ", loopback only"
			case host == "":
				return "answers DNS queries on port " + port + " of every interface, for private addresses"
			}
			return "answers DNS queries on " + net.JoinHostPort(unbracket(host), port)
		},
		Packets: listen.Packets,
	}
}

func resolverKind() *Kind {
	return &Kind{
		Name:     "resolver",
		Role:     Dial,
		Summary:  "the system's name servers and hosts file",
		Doc:      "It can only be the other side of dns-listen.",
		Example:  "resolver",
		Describe: func(*Part) string { return "asks the system's name servers" },
		Packets:  func(*Part) PacketSpec { return PacketSpec{} },
	}
}
