package bugs

import "testing"

// TestRowsE: files, logs and messages.
func TestRowsE(t *testing.T) {
	checkRows(t, []row{
		{
			id: "S10", what: "a full disk ended a recording or a log in silence, for ever", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestFullDisk", "./sink TestFullDisk", "./cmd/weir TestFullDiskLossless"},
		},
		{
			id: "S10", what: "replay: read its whole file, 126 MB a connection, on the loop", seen: "weir of 2026-11-21",
			tests: []string{"./layer TestReplayPieces"},
		},
		{
			id: "S12", what: "no line said which user or certificate a connection had", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestIdentity"},
		},
		{
			id: "A32", what: "certbot's directory as cert= failed with the lack of a key", seen: "weir of 2026-11-21",
			tests: []string{"./certs TestCertificateForms/certbot", "./certs TestCertificateForms/Kubernetes"},
		},
		{
			id: "S15", what: "a renegotiation with TLS 1.2 was refused by the names of Go's types", seen: "weir of 2026-11-21",
			tests: []string{"./layer TestRenegotiation"},
		},
		{
			id: "A31", what: "a byte-order mark or UTF-16 became part of the first user's name or of a password", seen: "weir of 2026-11-21",
			tests: []string{"./endpoint TestSecretsRead", "./endpoint TestSecrets"},
		},
		{
			id: "A33", what: "a GET of a client that has +connect as its http_proxy was told as \"command not supported\"", seen: "weir of 2026-11-21",
			tests: []string{"./cmd/weir TestPlainProxyRequest"},
		},
	})
}
