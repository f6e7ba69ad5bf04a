package timeout

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
)

// TestError: a timeout is every kind of timeout that callers look for, but not another
// Error with the same text.
func TestError(t *testing.T) {
	var err error = New("timed out")
	var n net.Error
	if !errors.As(err, &n) || !n.Timeout() || err.Error() != "timed out" {
		t.Errorf("%v is no net.Error that is a timeout", err)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, err) {
		t.Errorf("%v is not what it should be", err)
	}
	if errors.Is(err, New("timed out")) || errors.Is(err, os.ErrClosed) {
		t.Errorf("%v is what it should not be", err)
	}
}
