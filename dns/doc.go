// Package dns turns names into addresses and other records without a thread or
// a goroutine: an event-driven resolver on weir's datagram endpoints, with TCP
// where an answer is too long for one.
//
//	Lookup, LookupNetIP
//	   │ hosts file, literals, names that are never asked for (RFC 6761)
//	   │ search list and ndots
//	   ▼
//	question: cache, and one for all who ask the same
//	   │ the servers in turn, each with a time; aliases followed
//	   ▼
//	exchange: one query on a socket of its own ──refused, cut──▶ TCP, one
//	          connection for all; or with layers on it, such as TLS (WithStream)
//
// A reply counts only if it comes from the server that was asked, to the port
// the query came from, with its id and its question, letter for letter in the
// case that was drawn for it (draft-vixie-dnsext-dns0x20). Anything else is
// ignored, and the question is asked again over TCP. Ids, ports and letter
// cases come from crypto/rand.
//
// A Resolver is a weir.Resolver, so a loop made with
// weir.WithResolver(dns.New()) connects by name. Other resolvers can take its
// place: Static for tests, System for the operating system's own.
package dns
