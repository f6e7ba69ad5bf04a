package portable

import (
	"os"

	"github.com/weir-io/weir/internal/backend"
)

// A plain port serves a regular file, which every system reports as always ready: the
// loop reads and writes it, and waits for the disk if it must.
type plain struct {
	f    *os.File
	also func() // from Adopt: closes the descriptor that its owner knows
}

// newPlain makes a plain port, or returns nil for anything but a regular file.
func newPlain(rwc any) port {
	f, ok := rwc.(*os.File)
	if !ok {
		return nil
	}
	if st, err := f.Stat(); err != nil || !regular(st) {
		return nil
	}
	return &plain{f: f}
}

func (p *plain) arm(backend.Events) {}

func (p *plain) read(buf []byte) (int, error) { return p.f.Read(buf) }

func (p *plain) write(vec [][]byte) (n int, err error) {
	for _, piece := range vec {
		k, err := p.f.Write(piece)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// check never reports Failed: a file does not hang up.
func (p *plain) check(ev backend.Events) backend.Events {
	return ev & (backend.Readable | backend.Writable)
}

func (p *plain) failure() error    { return nil }
func (p *plain) closeWrite() error { return backend.ErrUnsupported }

func (p *plain) close(bool) {
	_ = p.f.Close()
	if p.also != nil {
		p.also()
	}
}

func (p *plain) release() error {
	if p.also != nil {
		return p.f.Close() // our duplicate
	}
	return nil
}

func (p *plain) getOption(backend.Option) (int, error) { return 0, backend.ErrUnsupported }
func (p *plain) setOption(backend.Option, int) error   { return backend.ErrUnsupported }
