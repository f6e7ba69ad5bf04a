package driver_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/driver"
	"github.com/weir-io/weir/driver/drivertest"
	"github.com/weir-io/weir/internal/backend/portable"
)

// counted is a third party's backend: portable, with its submissions counted.
type counted struct{ driver.Backend }

var submitted atomic.Int64

func (c counted) Submit(op *driver.Op, done *driver.Completion) bool {
	submitted.Add(1)
	return c.Backend.Submit(op, done)
}

func (c counted) Caps() driver.Caps {
	caps := c.Backend.Caps()
	caps.Name = "counted"
	return caps
}

// In a program this would be in the init function of an imported package.
func init() {
	driver.Register("counted", func() (driver.Backend, error) {
		be, err := portable.New()
		return counted{be}, err
	})
	driver.Register("absent", func() (driver.Backend, error) { return nil, errors.New("not on this machine") })
}

// TestImportLine: a backend added by an import line serves the loop (R15), and one that
// cannot be opened is passed over.
func TestImportLine(t *testing.T) {
	t.Setenv("WEIR_BACKEND", "")
	if names := weir.Backends(); names[0] != "counted" || names[1] != "absent" {
		t.Fatalf("backends: %v", names)
	}
	for _, name := range []string{"", "counted", "absent"} {
		l, err := weir.NewLoop(weir.WithBackendName(name))
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Backend().Name; got != "counted" {
			t.Errorf("asked for %q, served by %s", name, got)
		}
		submitted.Store(0)
		if _, err := l.Listen("tcp", "127.0.0.1:0", func(weir.Transport) weir.Protocol { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := l.Turn(0); err != nil {
			t.Fatal(err)
		}
		if submitted.Load() == 0 {
			t.Error("it was not used")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRegisterTwice: a name stands for one backend.
func TestRegisterTwice(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	driver.Register("counted", func() (driver.Backend, error) { return nil, nil })
}

// TestContract: the suite is available to those who write a backend.
func TestContract(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) driver.Backend {
		be, err := portable.New()
		if err != nil {
			t.Fatal(err)
		}
		return be
	})
}
