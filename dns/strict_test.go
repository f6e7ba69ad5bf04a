package dns

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// TestWellFormed: pointers that go forward, in circles or into the header,
// names that are too long, and data of another length than stated are detected.
func TestWellFormed(t *testing.T) {
	header := func(answers byte) []byte { return []byte{0, 7, 0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0} }
	question := []byte{1, 'a', 0, 0, 1, 0, 1} // at 12
	record := func(name []byte, typ byte, data ...byte) []byte {
		b := append(append([]byte(nil), name...), 0, typ, 0, 1, 0, 0, 0, 60, 0, byte(len(data)))
		return append(b, data...)
	}
	back := []byte{0xc0, 12}
	long := make([]byte, 0, 300)
	for range 4 {
		long = append(append(long, 63), make([]byte, 63)...)
	}
	for _, c := range []struct {
		name string
		rec  []byte
		ok   bool
	}{
		{"an address", record(back, 1, 1, 2, 3, 4), true},
		{"of three bytes", record(back, 1, 1, 2, 3), false},
		{"of five bytes", record(back, 1, 1, 2, 3, 4, 5), false},
		{"an IPv6 address of four bytes", record(back, 28, 1, 2, 3, 4), false},
		{"an alias", record(back, 5, 1, 'b', 0xc0, 12), true},
		{"an alias with something behind", record(back, 5, 1, 'b', 0xc0, 12, 0), false},
		{"an alias cut short", record(back, 5, 1), false},
		{"a pointer to itself", record([]byte{0xc0, 19}, 1, 1, 2, 3, 4), false},
		{"a pointer forward", record(back, 5, 0xc0, 33, 1, 'b', 0), false},
		{"a pointer into the header", record([]byte{0xc0, 4}, 1, 1, 2, 3, 4), false},
		{"a pointer that is cut", []byte{0xc0}, false},
		{"a name of 257 bytes", record(append(long, 0), 1, 1, 2, 3, 4), false},
		{"a strange label", record([]byte{0x41, 0, 0}, 1, 1, 2, 3, 4), false},
		{"texts", record(back, 16, 1, 'x', 2, 'y', 'z'), true},
		{"a text that is longer than its record", record(back, 16, 1, 'x', 3, 'y', 'z'), false},
		{"a service", record(back, 33, 0, 1, 0, 2, 0, 3, 0), true},
		{"a service without its name", record(back, 33, 0, 1, 0, 2, 0, 3), false},
		{"mail", record(back, 15, 0, 1, 0xc0, 12), true},
		{"something unknown", record(back, 99, 1, 2, 3), true},
		{"nothing where a record should be", nil, false},
		{"data beyond the end", append(append([]byte(nil), back...), 0, 99, 0, 1, 0, 0, 0, 60, 0, 9, 1), false},
	} {
		msg := append(append(header(1), question...), c.rec...)
		if got := wellFormed(msg); got != c.ok {
			t.Errorf("%s: %t", c.name, got)
		}
		if !c.ok {
			q := query{id: 7, name: dnsmessage.MustNewName("a."), qtype: A}
			if r, err := q.read(msg); err == nil {
				t.Errorf("%s: read as %+v", c.name, r)
			}
		}
	}
	for n := range headerSize {
		if wellFormed(header(0)[:n]) {
			t.Errorf("a header of %d bytes", n)
		}
	}
}
