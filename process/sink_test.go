package process

import "github.com/weir-io/weir"

// sink takes what a child writes.
type sink struct {
	t         weir.Transport
	got       []byte
	n         int
	keep      bool // got, and not only n
	eof, lost bool
	err       error
}

func (s *sink) factory() weir.Factory {
	return func(weir.Transport) weir.Protocol { return s }
}

func (s *sink) ConnectionMade(t weir.Transport) { s.t = t }

func (s *sink) DataReceived(p []byte) (int, error) {
	s.n += len(p)
	if s.keep {
		s.got = append(s.got, p...)
	}
	return len(p), nil
}

func (s *sink) EOFReceived(int) (bool, error) {
	s.eof = true
	return false, nil
}

func (s *sink) ConnectionLost(err error) { s.lost, s.err = true, err }
