module github.com/weir-io/weir/hosts/terminal

go 1.26.0

require (
	github.com/gdamore/tcell/v2 v2.13.10
	github.com/weir-io/weir v0.0.0-00010101000000-000000000000
	golang.org/x/sys v0.49.0
)

require (
	github.com/gdamore/encoding v1.0.1 // indirect
	github.com/lucasb-eyer/go-colorful v1.3.0 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	golang.org/x/term v0.37.0 // indirect
	golang.org/x/text v0.31.0 // indirect
)

replace github.com/weir-io/weir => ../..
