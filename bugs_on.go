//go:build weirbug

package weir

import "os"

// planted is the bug that is in force: one of regressions_test.go's, by name.
// They are what other frameworks had, or weir once had, put back so that the
// tests are seen to find them. It exists in builds with the tag weirbug only, for
// one test at a time; the environment variable WEIR_BUG sets it for a process.
var planted = os.Getenv("WEIR_BUG")

// PlantBug puts one of the bugs back, or takes it out with "".
func PlantBug(name string) { planted = name }
