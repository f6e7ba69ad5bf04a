package weir

// producing reports whether Close waits for a producer, which may still write.
func (s *stream) producing() bool {
	return s.phase < phaseLost && s.x.producer != nil
}

func (s *stream) RegisterProducer(p Producer) error {
	if err := s.loop.check("RegisterProducer"); err != nil {
		return err
	}
	if s.x.producer != nil {
		return ErrProducerRegistered
	}
	if s.phase != phaseOpen {
		s.loop.internalCall(func() { s.callProducer("StopProducing", p.StopProducing) })
		return nil
	}
	x := s.extra()
	x.producer, x.pull = p, !p.Streaming()
	if x.pull {
		s.flags |= fDrainDue
		s.queue()
	} else if s.flags&fWritePaused != 0 {
		x.producerPaused = true
		s.callProducer("PauseProducing", p.PauseProducing)
	}
	return nil
}

func (s *stream) UnregisterProducer() {
	if s.loop.check("UnregisterProducer") != nil || s.x.producer == nil {
		return
	}
	s.x.producer, s.x.producerPaused = nil, false
	s.touch()
}

func (s *stream) callProducer(where string, f func()) {
	defer s.guard(where)
	f()
}

// stopProducer tells a producer that is still registered at the end of the stream.
func (s *stream) stopProducer() {
	if s.x.producer == nil {
		return
	}
	p := s.x.producer
	s.x.producer = nil
	s.callProducer("StopProducing", p.StopProducing)
}
