package main

import (
	"github.com/weir-io/weir"
	"github.com/weir-io/weir/frame"
)

func main() {
	subscribers := map[weir.Transport]bool{}
	panic(weir.ListenAndServe("tcp", "127.0.0.1:7001", func(t weir.Transport) weir.Protocol {
		subscribers[t] = true
		return frame.Lines(func(line []byte) error {
			for s := range subscribers {
				s.Write(append(line, '\n'))
			}
			return nil
		}, frame.OnLost(func(error) { delete(subscribers, t) }))
	}))
}
