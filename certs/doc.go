// Package certs provides certificates and authorities that are read from files, and
// read again when the files change, and rules that say which peers' certificates are
// accepted. It knows nothing of loops and transports: its types work with a tls.Config
// of crypto/tls as well as with the TLS layers.
//
//	Files          a server's certificates    tls.Config.GetCertificate, GetClientCertificate
//	AuthorityFile  whom to trust              layer.WithClientAuthorities
//	PeerRules      whom of those to accept    layer.WithPeerRules
//
// Files look at the times, sizes and identities of their files at each handshake;
// nothing runs in between. If a file cannot be read, what was read before stays in use,
// and the function passed to NewFiles or NewAuthorityFile gets the error.
package certs
