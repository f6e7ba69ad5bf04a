//go:build !weirbug

package weir

// planted is the bug that the tag weirbug lets a test put back: see bugs_on.go.
// In every other build it is none, and the compiler drops what asks for it.
const planted = ""
