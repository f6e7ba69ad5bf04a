package netconn

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-io/weir"
)

// TestPathsBounded: whatever routers say, so many addresses are remembered at most, and the
// newest of them; a shorter length replaces a longer one, and not the other way round.
func TestPathsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ps paths
		at := func(i int) netip.Addr {
			return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+uint32(i))))
		}
		const n = 3 * pathCount
		for i := range n {
			ps.learn(&weir.MTUError{MTU: 1300, Most: 1272}, at(i))
			if len(ps.all) > pathCount {
				t.Fatalf("%d addresses are remembered", len(ps.all))
			}
			<-time.After(time.Millisecond)
		}
		if ps.fits(1273, at(n-pathCount-1)) != nil || ps.fits(1273, at(n-pathCount)) == nil || ps.fits(1273, at(n-1)) == nil {
			t.Error("it is not the newest that are remembered")
		}
		last := netip.AddrFrom16(at(n - 1).As16()) // as IPv6 has it
		for _, most := range []int{999, 1272} {
			ps.learn(&weir.MTUError{Most: most}, last)
			long, ok := errors.AsType[*weir.MTUError](ps.fits(1000, at(n-1)))
			if !ok || long.Most != 999 || long.MTU != 1300 || ps.fits(999, last) != nil {
				t.Errorf("after %d bytes were too many: %v", most+1, long)
			}
		}
		ps.learn(&weir.MTUError{MTU: 100}, at(n))
		if err := ps.fits(60_000, at(n)); err != nil {
			t.Errorf("where fragments are sent: %v", err)
		}
		<-time.After(pathTime)
		if err := ps.fits(60_000, last); err != nil {
			t.Errorf("after %v: %v", pathTime, err)
		}
	})
}
