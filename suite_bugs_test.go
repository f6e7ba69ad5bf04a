//go:build weirbug

package weir_test

import (
	"testing"

	"github.com/weir-io/weir"
)

// bugSeeds is within how many seeds of a scenario a planted bug must be found.
const bugSeeds = 20_000 / 6

// TestPlantedBugs puts back, one at a time, bugs that others had, and sees the
// scenarios find each: a suite that cannot fail shows nothing.
//
//	go test -tags weirbug -run TestPlantedBugs .
func TestPlantedBugs(t *testing.T) {
	defer weir.PlantBug("")
	for _, bug := range weir.PlantedBugs() {
		t.Run(bug, func(t *testing.T) {
			weir.PlantBug(bug)
			for seed := uint64(1); seed <= bugSeeds; seed++ {
				for i, sc := range seedScenarios {
					if s := runSeed(t, i, seed); len(s.problems) > 0 {
						t.Logf("found by seed %d of %q: %s", seed, sc.name, s.problems[0])
						return
					}
				}
			}
			t.Errorf("%d seeds of each scenario did not find it", bugSeeds)
		})
	}
}
