package choice

import (
	"github.com/weir-io/weir/internal/backend"
	"github.com/weir-io/weir/internal/backend/epoll"
	"github.com/weir-io/weir/internal/backend/uring"
)

func candidates() []candidate {
	return []candidate{
		{"epoll", func() (backend.Backend, error) { return epoll.New(false) }},
		{"epoll-et", func() (backend.Backend, error) { return epoll.New(true) }},
		{"uring", func() (backend.Backend, error) { return uring.New(uring.Config{}) }},
		portableCandidate,
	}
}
