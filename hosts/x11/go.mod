module github.com/weir-io/weir/hosts/x11

go 1.26.0

require (
	github.com/jezek/xgb v1.1.1
	github.com/weir-io/weir v0.0.0-00010101000000-000000000000
)

require golang.org/x/sys v0.49.0 // indirect

replace github.com/weir-io/weir => ../..
