package endpoint_test

import (
	"errors"
	"fmt"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/frame"
)

// Strings tell a server and a client where to go and through which layers.
func Example() {
	l, err := weir.NewLoop()
	if err != nil {
		panic(err)
	}
	defer l.Close()
	env := &endpoint.Env{Loop: l}
	table := endpoint.Default()

	here, err := table.Parse("0+ws:/echo,compress") // any free port, on loopback only
	if err != nil {
		panic(err)
	}
	ln, err := here.Listen(env, func(t weir.Transport) weir.Protocol { return weir.DataFunc(t.Write) })
	if err != nil {
		panic(err)
	}

	there, err := table.Parse(ln.Addrs()[0].String() + "+ws:/echo,compress")
	if err != nil {
		panic(err)
	}
	there.Connect(env, frame.Lines(
		func(line []byte) error {
			fmt.Printf("%s\n", line)
			l.Stop()
			return nil
		},
		frame.OnMade(func(t weir.Transport) { fmt.Fprintln(t, "hello") }),
	))
	if err := l.Run(); err != nil {
		panic(err)
	}
	// Output: hello
}

// Parsing does no I/O. What a string means can be inspected before it is used.
func ExampleTable_Parse() {
	e, err := endpoint.Default().Parse("db.example.com:5432,retry=30s+ratelimit:10mbit+tls,ca=corp.pem")
	if err != nil {
		panic(err)
	}
	fmt.Println(e.Kind().Name, e.Base.ArgText(), e.Base.Duration("retry"))
	for _, p := range e.Layers { // the one nearest the wire first
		fmt.Printf("%s %q %q\n", p.Name.Text, p.ArgText(), p.Value("ca"))
	}
	fmt.Println("listens:", e.Role() == endpoint.Listen)
	// Output:
	// tcp db.example.com:5432 30s
	// ratelimit "10mbit" ""
	// tls "" "corp.pem"
	// listens: false
}

// A string that is not valid is shown together with what is wrong with it and
// the nearest right word.
func ExampleError() {
	_, err := endpoint.Default().Parse("localhost:3000+tsl,ca=corp.pem")
	fmt.Println(err)
	var e *endpoint.Error
	if errors.As(err, &e) {
		fmt.Println(e.Problem, "at byte", e.Pos)
	}
	// Output:
	// weir: unknown layer "tsl"
	//   localhost:3000+tsl,ca=corp.pem
	//                  ^^^ did you mean "tls"?        (weir help layers)
	// unknown layer "tsl" at byte 15
}

// Text that a person typed is quoted before it goes into an endpoint string.
func ExampleQuote() {
	path := "/srv/a+b, 100%"
	e, err := endpoint.Default().Parse("unix:" + endpoint.Quote(path))
	if err != nil {
		panic(err)
	}
	fmt.Println(e)
	fmt.Println(e.Base.ArgText() == path)
	// Output:
	// unix:/srv/a%2Bb%2C 100%25
	// true
}
