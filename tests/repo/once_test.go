package repo

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestOneHome: code that was written several times, each a little different, has one
// home in the module, and similar code elsewhere is listed here with its reason.
func TestOneHome(t *testing.T) {
	for _, c := range []struct {
		what, pattern string
		homes         []string
	}{
		{"SplitMix64", `(?i)0x9e3779b97f4a7c15|0xbf58476d1ce4e5b9|0x94d049bb133111eb`, []string{"internal/splitmix/splitmix.go"}},
		{"an error that always is a timeout", `\) Timeout\(\) bool\s*\{ return true \}`, []string{
			"internal/timeout/timeout.go",
			"layer/tls_wire.go", // nothing took too long: crypto/tls continues only after such an error
		}},
		{"a backoff, other than weir.Backoff", `= min\(2 ?\* ?\w+(\.\w+)*, `, []string{
			"linger.go",         // how often a closed socket is checked: nothing fails
			"netconn/attach.go", // a net.Listener that is out of descriptors: it has no loop
		}},
	} {
		pattern := regexp.MustCompile(c.pattern)
		found := map[string]bool{}
		for name, text := range texts(t, ".go") {
			module := !strings.HasPrefix(name, "bench/") && !strings.HasPrefix(name, "interop/") && !strings.HasPrefix(name, "hosts/")
			if module && !strings.HasSuffix(name, "_test.go") && pattern.MatchString(text) {
				found[name] = true
			}
		}
		if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, c.homes) {
			t.Errorf("%s: %s matches in %v, want %v", c.what, c.pattern, got, c.homes)
		}
	}
}
