package weir

import (
	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/epoll"
)

func candidates() []candidate {
	return []candidate{
		{"epoll", func() (backend.Backend, error) { return epoll.New(false) }},
		{"epoll-et", func() (backend.Backend, error) { return epoll.New(true) }},
		portableCandidate,
	}
}
