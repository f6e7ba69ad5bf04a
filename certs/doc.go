// Package certs has certificates and authorities that are read from files, and read
// again when the files change, and rules that say which peers' certificates are
// accepted. It knows nothing of loops and transports: what it has fits a tls.Config
// of crypto/tls as well as the TLS layers.
//
//	Files          a server's certificates    tls.Config.GetCertificate, GetClientCertificate
//	AuthorityFile  whom to trust              layer.WithClientAuthorities
//	PeerRules      whom of those to accept    layer.WithPeerRules
//
// Files look at the times, sizes and identities of their files at each handshake;
// nothing runs in between. What cannot be read leaves in place what was there, and
// is told to the function that their makers take.
package certs
