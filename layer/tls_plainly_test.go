package layer

import (
	"errors"
	"testing"
)

// TestMessagesInWords: no name of crypto/tls's types reaches a log.
func TestMessagesInWords(t *testing.T) {
	for in, want := range map[string]string{
		"tls: received unexpected handshake message of type *tls.clientHelloMsg when waiting for *tls.helloRequestMsg":          ErrRenegotiation.Error(),
		"tls: received unexpected handshake message of type *tls.serverHelloDoneMsg when waiting for *tls.certificateMsgTLS13":  "the peer sent the message server_hello_done where certificate was due",
		"tls: received unexpected handshake message of type *tls.finishedMsg when waiting for *tls.clientHelloMsg":              "the peer sent the message finished where client_hello was due",
		"tls: received unexpected handshake message of type *tls.newSessionTicketMsgTLS13 when waiting for *tls.certificateMsg": "the peer sent the message new_session_ticket where certificate was due",
		"local error: tls: no renegotiation": "local error: tls: no renegotiation", // the text alone does not count
		"tls: bad record MAC":                "tls: bad record MAC",
	} {
		if got := plainly(errors.New(in)); got.Error() != want {
			t.Errorf("%s: %v, want %s", in, got, want)
		}
	}
}
