package choice

import (
	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/iocp"
)

func candidates() []candidate {
	return []candidate{
		{"iocp", func() (backend.Backend, error) { return iocp.New(iocp.Config{}) }},
		portableCandidate,
	}
}
