package main

import "github.com/weir-io/weir"

func main() {
	panic(weir.ListenAndServe("tcp", "127.0.0.1:7000", func(t weir.Transport) weir.Protocol {
		return weir.DataFunc(t.Write)
	}))
}
