package dns

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// TestPresentation: records are written as in a zone file (the examples are
// those of the RFCs), and data that do not have their type's format as in RFC
// 3597.
func TestPresentation(t *testing.T) {
	const name = "03777777076578616d706c6503636f6d00" // www.example.com.
	for _, c := range []struct {
		t    Type
		data string // in hex
		want string
	}{
		{CAA, "00056973737565" + hex.EncodeToString([]byte(`ca.example; a="b"`)), `0 issue "ca.example; a=\"b\""`},
		{CAA, "8005697373756500", `128 issue "\000"`},
		{CAA, "00", `\# 1 00`},
		{DS, "ec45050123f1a2", "60485 5 1 23F1A2"},
		{CDS, "0000000000", "0 0 0 00"},
		{DS, "ec450501", `\# 4 ec450501`},
		{DNSKEY, "010003050102ff", "256 3 5 AQL/"},
		{TLSA, "030101abcd", "3 1 1 ABCD"},
		{SSHFP, "0402beef", "4 2 BEEF"},
		{HINFO, "0350433203074c696e", `\# 9 0350433203074c696e`},
		{HINFO, "025043034c696e", `"PC" "Lin"`},
		{DNAME, name, "www.example.com."},
		{DNAME, "03612e6200", `a\.b.`},
		{DNAME, "c00c", `\# 2 c00c`},
		{NAPTR, "0064000a" + "0175" + "0745325532736970" + "00" + name, `100 10 "u" "E2U2sip" "" www.example.com.`},
		{NAPTR, "0064000a0175", ""},
		{RRSIG, "00010503000151803ff6b1803fcf24800a3e" + name + "0102ff", "A 5 3 86400 20040103121144 20031204121144 2622 www.example.com. AQL/"},
		{NSEC, name + "0006400100000003", "www.example.com. A MX RRSIG NSEC"},
		{NSEC, name + "000640", ""},
		{Type(65280), "00ff", `\# 2 00ff`},
		{Type(65280), "", `\# 0`},
	} {
		data, err := hex.DecodeString(c.data)
		if err != nil {
			t.Fatal(err)
		}
		got := Record{Type: c.t, Data: data}.Value()
		if c.want == "" {
			c.want = unknown(data)
		}
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", c.t, c.data, got, c.want)
		}
		// Data cut off anywhere cause no panic.
		for n := range data {
			_ = Record{Type: c.t, Data: data[:n]}.Value()
		}
	}
	for _, c := range []struct {
		p    Param
		want string
	}{
		{Param{0, []byte{0, 1, 0, 3}}, "mandatory=alpn,port"},
		{Param{1, []byte("\x02h2\x05h3-19")}, `alpn="h2,h3-19"`},
		{Param{1, []byte("\x08f\\oo,bar\x02h2")}, `alpn="f\\\\oo\\,bar,h2"`},
		{Param{2, nil}, "no-default-alpn"},
		{Param{3, []byte{0x1f, 0x90}}, "port=8080"},
		{Param{3, []byte{0x1f}}, `key3="\031"`},
		{Param{4, []byte{192, 0, 2, 1, 192, 0, 2, 2}}, "ipv4hint=192.0.2.1,192.0.2.2"},
		{Param{5, []byte{1, 2, 255}}, `ech="AQL/"`},
		{Param{6, append([]byte{0x20, 1, 0xd, 0xb8}, make([]byte, 12)...)}, "ipv6hint=2001:db8::"},
		{Param{7, []byte("/dns-query{?dns}")}, `dohpath="/dns-query{?dns}"`},
		{Param{667, []byte("hello\xd2qoo")}, `key667="hello\210qoo"`},
		{Param{668, nil}, "key668"},
	} {
		if got := c.p.String(); got != c.want {
			t.Errorf("%v: %s, want %s", c.p, got, c.want)
		}
	}
	soa := Record{Name: "example.com.", Type: SOA, TTL: time.Hour, SOA: &Authority{
		Server: "ns.example.com.", Mailbox: "host\x00.example.com.", Serial: 2026112901,
		Refresh: 2 * time.Hour, Retry: time.Hour, Expire: 14 * 24 * time.Hour, Minimum: time.Minute,
	}}
	if got, want := soa.String(), `example.com. 3600 IN SOA ns.example.com. host\000.example.com. 2026112901 7200 3600 1209600 60`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, n := range strings.Fields("A NS CNAME SOA PTR MX TXT AAAA SRV SVCB HTTPS CAA DS DNSKEY TLSA SSHFP NAPTR RRSIG NSEC HINFO DNAME CDS CDNSKEY SMIMEA") {
		if typ, err := ParseType(strings.ToLower(n)); err != nil || typ.String() != n {
			t.Errorf("%s: %v, %v", n, typ, err)
		}
	}
}
