package endpoint

import "net"

func dnsListenKind() *Kind {
	listen := udpListenKind()
	return &Kind{
		Name:    "dns-listen",
		Role:    Listen,
		Summary: "answer questions for names, UDP and TCP",
		Doc: "Answers come from the hosts file, from a cache, and from the other side: resolver,\n" +
			"which is the system's name servers, udp:ADDR:53, or a connection to one, such as\n" +
			"9.9.9.9:853+tls. --stale says how long old answers do while no server answers. A port\n" +
			"alone is loopback only, :port every interface; only loopback, private and link-local\n" +
			"addresses get answers.",
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
				return "answers questions for names on port " + port + ", loopback only"
			case host == "":
				return "answers questions for names on port " + port + " of every interface, to private addresses"
			}
			return "answers questions for names on " + net.JoinHostPort(unbracket(host), port)
		},
		Packets: listen.Packets,
	}
}

func resolverKind() *Kind {
	return &Kind{
		Name:     "resolver",
		Role:     Dial,
		Summary:  "the system's name servers and hosts file",
		Doc:      "The other side of dns-listen.",
		Example:  "resolver",
		Describe: func(*Part) string { return "asks the name servers of the system's configuration" },
		Packets:  func(*Part) PacketSpec { return PacketSpec{} },
	}
}
