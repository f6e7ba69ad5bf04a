package bugs

import "testing"

// TestRowsWebSocket: HTTP in front of WebSocket and CONNECT, and compression.
func TestRowsWebSocket(t *testing.T) {
	checkRows(t, []row{
		{
			id: "A18", what: "no field, cookie or password could be sent with an upgrade or a CONNECT", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestWSRequest", "./endpoint TestWSSides", "./layer/proxy TestConnectSays"},
		},
		{
			id: "B8", what: "Expect: 100-continue in a request for an upgrade was never answered", seen: "weir of 2026-11-21, gorilla/websocket",
			tests: []string{"./layer/ws TestUpgradeRefused"},
		},
		{
			id: "A13", what: "a pipe through a WebSocket to a server that is no weir never ended", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestWSOneShot", "./layer/ws TestEndWithoutAnswer", "./layer/ws TestEndAtOnceAndNever"},
		},
		{
			id: "A24", what: "a SOCKS5 proxy whose users have empty passwords could not be used", seen: "weir of 2026-11-21",
			tests: []string{"./layer/proxy TestEmptyPassword"},
		},
	})
}
