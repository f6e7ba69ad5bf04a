package ws

import (
	"fmt"

	"github.com/weir-io/weir/internal/refusal"
)

// refused is an answer that does not switch protocols, kept while the beginning
// of its body comes.
type refused struct {
	e    UpgradeError
	body *refusal.Body
}

// refusedWith handles an answer that refuses the upgrade. The layer fails with
// it once the beginning of its body, which says why, has come, or nothing more
// can come.
func (s *session) refusedWith(h *head, status int, line string) {
	r := &refused{e: UpgradeError{Status: status, Reason: fmt.Sprintf("%q", clip(line))}, body: refusal.Of(status, h.fields)}
	where, _ := h.get("location")
	r.e.Location = clip(where)
	s.refused = r
	if r.body.Whole() {
		s.Fail(r.error())
		return
	}
	s.SetDeadline(0) // the refusal is the reason, not a timeout
	loop := s.Below().Loop()
	s.patience = loop.After(min(refusal.Wait, s.Timeout-loop.Now().Sub(s.begun)), func() { s.Fail(r.error()) })
}

func (r *refused) error() error {
	e := r.e
	e.Body = r.body.String()
	return &e
}
