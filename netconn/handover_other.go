//go:build !unix

package netconn

import (
	"io"

	"github.com/weir-io/weir"
)

// handOver hands nothing over: on this platform a socket belongs to the runtime for good.
func handOver(*weir.Loop, io.ReadWriteCloser, weir.Factory, []weir.StreamOption) (weir.Transport, error) {
	return nil, errNotHanded
}
