package contract

import (
	"os"
	"os/exec"
	"testing"

	"github.com/weir-io/weir"
)

// TestChildrenInheritNothing starts a program while every kind of descriptor is
// open: the program must inherit none of them, or closing one here would close
// nothing.
func TestChildrenInheritNothing(t *testing.T) {
	child := func() string {
		out, err := exec.Command("ls", "/proc/self/fd").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	onRealLoops(t, func(t *testing.T, l *weir.Loop) {
		count := func() int {
			open, err := os.ReadDir("/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			return len(open)
		}
		before, own := child(), count()
		echoed := false
		connectEcho(t, l, func() { echoed = true })
		turns(t, l, "an echo", func() bool { return echoed })
		if _, err := l.Listen("unix", t.TempDir()+"/s", func(weir.Transport) weir.Protocol { return nil }); err != nil {
			t.Fatal(err)
		}
		echo := func(tr weir.Transport) weir.Protocol { return weir.DataFunc(tr.Write) }
		if _, _, err := l.Pipe(echo, echo); err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.SocketPair(echo, echo); err != nil {
			t.Fatal(err)
		}
		if n := count() - own; n < 5 {
			t.Errorf("only %d descriptors were opened", n)
		}
		if now := child(); now != before {
			t.Errorf("a child had\n%snow it has\n%s", before, now)
		}
	})
}
