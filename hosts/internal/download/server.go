package download

import (
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
)

// pattern is what the server's files consist of, over and over. Its length is odd, so
// that bytes that were lost or repeated in blocks change what follows.
func pattern() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 1<<20-1)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// Handler serves files of any length: /1000000 is one of a million bytes.
func Handler() http.Handler {
	p := pattern()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/"), 10, 64)
		if err != nil || n < 0 {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		for n > 0 {
			b := p[:min(n, int64(len(p)))]
			if _, err := w.Write(b); err != nil {
				return
			}
			n -= int64(len(b))
		}
	})
}

// Sum is the CRC-32 of the server's file of n bytes.
func Sum(n int64) uint32 {
	var sum uint32
	p := pattern()
	for n > 0 {
		b := p[:min(n, int64(len(p)))]
		sum = crc32.Update(sum, crc32.IEEETable, b)
		n -= int64(len(b))
	}
	return sum
}
