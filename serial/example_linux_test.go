package serial_test

import (
	"fmt"
	"os"
	"time"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/serial"
)

// modem prints what a device says.
type modem struct{ l *weir.Loop }

func (m *modem) ConnectionMade(t weir.Transport) { _, _ = t.Write([]byte("ATI\r")) }

func (m *modem) DataReceived(b []byte) (int, error) {
	_, _ = os.Stdout.Write(b)
	return len(b), nil
}

func (m *modem) ConnectionLost(err error) {
	fmt.Println("lost:", err)
	m.l.Stop()
}

// A device at 115200 bits a second that may be unplugged for a minute.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	c := serial.Config{Speed: 115200, Flow: serial.Hardware, Absence: time.Minute, Changed: func(gone error) {
		fmt.Println("changed:", gone)
	}}
	port, err := serial.Open(l, "/dev/ttyUSB7", c, func(weir.Transport) weir.Protocol { return &modem{l} })
	if err != nil {
		fmt.Println(err)
		return
	}
	lines, err := port.Lines()
	fmt.Println(lines, err)
	if err := l.Run(); err != nil {
		fmt.Println(err)
	}
	// Output: open /dev/ttyUSB7: no such file or directory
}
