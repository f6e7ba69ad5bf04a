package weir_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/weir-io/weir"
)

// errInside is the reason for not connecting to one of our own hosts.
var errInside = errors.New("not from outside")

// visitor is a client's protocol that says why it got no connection.
type visitor struct {
	weir.Protocol // used once there is a connection
	l             *weir.Loop
}

func (v visitor) ConnectFailed(err *weir.ConnectError) {
	fmt.Println(err)
	fmt.Println("forbidden:", errors.Is(err, errInside))
	v.l.Stop()
}

// If a program lets others choose where it connects, a filter sees each address before
// anything is sent there.
func ExampleWithAddrFilter() {
	inside := netip.MustParsePrefix("10.0.0.0/8")
	opt := weir.WithAddrFilter(func(a netip.AddrPort) error {
		if inside.Contains(a.Addr().Unmap()) {
			return errInside
		}
		return nil
	})
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	l.Connect("tcp", "10.1.2.3:22", visitor{weir.DataFunc(io.Discard.Write), l}, opt)
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output:
	// weir: cannot connect to tcp 10.1.2.3:22: 10.1.2.3:22: connect: not from outside
	// forbidden: true
}
