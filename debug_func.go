package weir

import (
	"reflect"
	"runtime"
)

// funcName names a function for people.
func funcName(f func()) string {
	pc := reflect.ValueOf(f).Pointer()
	fn := runtime.FuncForPC(pc)
	if fn == nil {
		return "func"
	}
	file, line := fn.FileLine(pc)
	return fn.Name() + " (" + file + ":" + itoa(line) + ")"
}
