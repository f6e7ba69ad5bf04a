package endpoint

import "testing"

// TestFlowsMost: the peers of a relay of datagrams leave room for the descriptors that it
// keeps, with one for each peer, or two through a proxy.
func TestFlowsMost(t *testing.T) {
	for text, each := range map[string]int{"udp:h:1": 1, "udp:h:1+loss:0.1": 1, "udp:h:1+socks5:g:2": 2} {
		e, err := Default().Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for limit, room := range map[uint64]int{1024: 1024 - descriptorsKept, 100: 50, 1: each, 0: 0} {
			if n := e.flowsMost(limit); n*each > max(room, 2) || (n+2)*each < room {
				t.Errorf("%s with a limit of %d: %d peers", text, limit, n)
			}
		}
	}
}
