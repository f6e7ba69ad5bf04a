package balance_test

import (
	"errors"
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/balance"
)

// The least busy of three servers is picked for each connection; one that cannot
// be reached is left alone, and another takes its place.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	servers := []string{"db1:5432", "db2:5432", "db3:5432"}
	b := balance.New(l, len(servers), balance.Config{
		Policy:  balance.Least,
		Changed: func(target int, up bool, err error) { fmt.Println(servers[target], "is up:", up, err) },
	})
	defer b.Stop()

	pick := func() *balance.Lease {
		lease, err := b.Pick(0) // the key is for HashPeer
		if err != nil {
			panic(err)
		}
		return lease
	}
	first := pick()
	fmt.Println(servers[first.Target()])
	first.Up() // and Release when the connection is gone

	second := pick()
	second.Failed(errors.New("connection refused"))
	second, err = second.Next(0)
	if err != nil {
		panic(err) // every server was tried
	}
	fmt.Println(servers[second.Target()])
	second.Up()

	first.Release()
	fmt.Println(servers[pick().Target()])
	// Output:
	// db1:5432
	// db2:5432 is up: false connection refused
	// db3:5432
	// db1:5432
}

// With HashPeer the same key leads to the same target, as long as that is up.
func ExampleConfig_hashPeer() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	b := balance.New(l, 5, balance.Config{Policy: balance.HashPeer})
	defer b.Stop()
	seen := make(map[int]int)
	for range 10 {
		lease, err := b.Pick(0x5eed) // a hash of the peer's address
		if err != nil {
			panic(err)
		}
		seen[lease.Target()]++
		lease.Release()
	}
	fmt.Println(len(seen), "target for one peer")
	// Output: 1 target for one peer
}
