module github.com/weir-io/weir

go 1.26
