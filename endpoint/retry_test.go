package endpoint_test

import (
	"slices"
	"testing"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/weirtest"
)

// retried makes several connects at once, with retry=, to a server that starts
// to listen after the duration listens, if that is not 0. It returns when each
// attempt failed, when each connect ended, and whether it ended with a
// connection.
func retried(t *testing.T, option string, listens time.Duration) (failed [][]time.Duration, ended []time.Duration, made []bool) {
	t.Helper()
	const clients = 3
	s := weirtest.NewSim(t, 1)
	client, server := s.Host("client"), s.Host("server")
	e, err := endpoint.Default().Parse(server.Addr(80) + "," + option)
	if err != nil {
		t.Fatal(err)
	}
	if listens > 0 {
		server.Loop().After(listens, func() {
			if _, err := server.Loop().Listen("tcp", ":80", func(weir.Transport) weir.Protocol { return weir.DataFunc(discardAll) }); err != nil {
				t.Error(err)
			}
		})
	}
	failed, ended, made = make([][]time.Duration, clients), make([]time.Duration, clients), make([]bool, clients)
	over := 0
	for i := range clients {
		c := e.Connect(&endpoint.Env{Loop: client.Loop()}, outcome(func(connected bool) {
			ended[i], made[i] = s.Now(), connected
			over++
		}))
		c.OnRetry(func(*weir.ConnectError) { failed[i] = append(failed[i], s.Now()) })
	}
	s.Until("all have ended", func() bool { return over == clients })
	return failed, ended, made
}

// outcome is called once and told whether a connect ended with a connection.
type outcome func(connected bool)

func (o outcome) ConnectionMade(weir.Transport)      { o(true) }
func (o outcome) DataReceived(p []byte) (int, error) { return len(p), nil }
func (o outcome) ConnectionLost(error)               {}
func (o outcome) ConnectFailed(*weir.ConnectError)   { o(false) }

func discardAll(p []byte) (int, error) { return len(p), nil }

// TestRetry: with retry= the waits are those of a weir.Redialer: they double up
// to a second, none is the full length or equal to another connect's, and a
// world repeats them. The last attempt is made when the time is up, and not
// before; a server that comes up in time is found (R45).
func TestRetry(t *testing.T) {
	const total = 10 * time.Second
	failed, ended, _ := retried(t, "retry=10s", 0)
	again, _, _ := retried(t, "retry=10s", 0)
	for i, at := range failed {
		if !slices.Equal(at, again[i]) {
			t.Errorf("connect %d failed at %v, and in the same world at %v", i, at, again[i])
		}
		if i > 0 && slices.Equal(at, failed[0]) {
			t.Errorf("connects 0 and %d came together, at %v", i, at)
		}
		const trip = 50 * time.Millisecond // how long an attempt may take, there and back
		if ended[i] < total || ended[i] > total+trip {
			t.Errorf("connect %d was given up after %v, want %v", i, ended[i], total)
		}
		if len(at) < 10 || len(at) > 30 {
			t.Errorf("%d attempts in %v", len(at), total)
		}
		most := 75 * time.Millisecond
		for j := 1; j < len(at); j++ {
			if d := at[j] - at[j-1]; d < most/2 || d > most+trip {
				t.Errorf("connect %d: wait %d is %v, want half to all of %v", i, j, d, most)
			}
			most = min(2*most, time.Second)
		}
	}
	if _, ended, made := retried(t, "retry=10s", 5*time.Second); slices.Contains(made, false) || slices.Max(ended) > 6100*time.Millisecond {
		t.Errorf("a server that listened after 5 s: connected %v, after %v", made, ended)
	}
	if failed, ended, _ := retried(t, "nagle", 0); len(failed[0]) > 0 || ended[0] > time.Second {
		t.Errorf("without retry=: attempts failed at %v, given up after %v", failed[0], ended[0])
	}
}
