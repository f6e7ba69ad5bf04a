package certs_test

import (
	"testing"

	"github.com/weir-io/weir/certs"
)

// TestPeerRules: which certificates the rules accept.
func TestPeerRules(t *testing.T) {
	cert := certificate(t, issue{cn: "billing", dns: []string{"db.corp.test", "*.web.test"}, uri: "spiffe://Corp.test/ns/prod/billing"}).Leaf
	bare := certificate(t, issue{}).Leaf
	for _, c := range []struct {
		rules certs.PeerRules
		want  bool
	}{
		{certs.PeerRules{}, true},
		{certs.PeerRules{CommonNames: []string{"billing"}}, true},
		{certs.PeerRules{CommonNames: []string{"Billing", "bill", "billing2", ""}}, false},
		{certs.PeerRules{DNSNames: []string{"DB.corp.test."}}, true},
		{certs.PeerRules{DNSNames: []string{"*.corp.test"}}, true},
		{certs.PeerRules{DNSNames: []string{"*.test"}}, false},
		{certs.PeerRules{DNSNames: []string{"corp.test"}}, false},
		{certs.PeerRules{DNSNames: []string{"a.web.test"}}, false}, // the certificate is for all of them, the rule for one
		{certs.PeerRules{DNSNames: []string{"*.web.test"}}, true},
		{certs.PeerRules{URIs: []string{"spiffe://corp.test/ns/prod/billing"}}, true},
		{certs.PeerRules{URIs: []string{"spiffe://corp.test/ns/*/billing"}}, true},
		{certs.PeerRules{URIs: []string{"spiffe://corp.test/**"}}, true},
		{certs.PeerRules{URIs: []string{"spiffe://corp.test/ns/prod/billing/**"}}, true},
		{certs.PeerRules{URIs: []string{"spiffe://corp.test/*"}}, false},
		{certs.PeerRules{URIs: []string{"spiffe://corp.test/ns/prod/billing?x"}}, false},
		{certs.PeerRules{URIs: []string{"spiffe://corp.test/ns/prod/bill"}}, false},
		{certs.PeerRules{URIs: []string{"spiffe://corp.test.evil/ns/prod/billing", "https://corp.test/ns/prod/billing"}}, false},
		{certs.PeerRules{CommonNames: []string{"x"}, URIs: []string{"spiffe://corp.test/**"}}, true},
	} {
		if got := c.rules.Allow(cert); got != c.want {
			t.Errorf("%v: %v, want %v", c.rules, got, c.want)
		}
		if c.rules.String() != "" && c.rules.Allow(bare) {
			t.Errorf("%v accepts a certificate without names", c.rules)
		}
	}
}
