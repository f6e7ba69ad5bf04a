//go:build weirbug

package weir_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/weir-io/weir"
)

// bugSeeds is within how many seeds of a scenario a planted bug must be found.
const bugSeeds = 20_000 / 6

// TestPlantedBugs puts back, one at a time, the bugs of regressions, and sees
// what is named there find each: tests that cannot fail show nothing.
//
//	go test -tags weirbug -run TestPlantedBugs .
func TestPlantedBugs(t *testing.T) {
	defer weir.PlantBug("")
	for _, r := range regressions {
		for _, b := range r.bugs {
			t.Run(b.name, func(t *testing.T) {
				if b.run != "" {
					findByTest(t, b)
				}
				if b.sim {
					findBySeed(t, b)
				}
			})
		}
	}
}

// findByTest runs tests in a process of their own, since they shall fail.
func findByTest(t *testing.T, b bug) {
	run := func(name string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+b.run, "-test.timeout", "60s", "-test.v")
		if name != "" {
			cmd.Args[4] = "10s" // some bugs show as waiting for ever
		}
		cmd.Env = append(os.Environ(), "WEIR_BUG="+name)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run(b.name)
	switch {
	case err == nil:
		t.Errorf("%s: %s does not find it", b.name, b.run)
		return
	case !strings.Contains(out, "--- FAIL") && !strings.Contains(out, "panic: "):
		t.Fatalf("%v:\n%s", err, out)
	}
	// Without the bug they pass, so they do find it, and not something else.
	if out, err := run(""); err != nil || !strings.Contains(out, "--- PASS") {
		t.Fatalf("without the bug: %v:\n%s", err, out)
	}
	t.Logf("%s: found by %s", b.name, b.run)
}

func findBySeed(t *testing.T, b bug) {
	weir.PlantBug(b.name)
	defer weir.PlantBug("")
	for seed := uint64(1); seed <= bugSeeds; seed++ {
		for i, sc := range seedScenarios {
			if problem := firstProblem(t, i, seed); problem != "" {
				t.Logf("%s: found by seed %d of %q: %s", b.name, seed, sc.name, problem)
				return
			}
		}
	}
	t.Errorf("%s: %d seeds of each scenario did not find it", b.name, bugSeeds)
}

// firstProblem runs a seed; a panic is a problem too.
func firstProblem(t *testing.T, scenario int, seed uint64) (problem string) {
	defer func() {
		if v := recover(); v != nil {
			problem = fmt.Sprint("panic: ", v)
		}
	}()
	if s := runSeed(t, scenario, seed); len(s.problems) > 0 {
		return s.problems[0]
	}
	return ""
}
