package main

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-io/weir/endpoint"
)

// TestStallDefault: --write-stall is 10 min where strangers connect and are relayed to a
// target, and does not hold what a person runs once, unless it is given.
func TestStallDefault(t *testing.T) {
	// It sets the collector's limit, unless that is given.
	c := &command{table: endpoint.Default(), lookupEnv: func(string) (string, bool) { return "off", true }}
	for line, want := range map[string]time.Duration{
		"8080 localhost:80":                  stallUsual,
		"8080 echo":                          stallUsual,
		"tcp:localhost:80 -":                 0,
		"- tcp-listen:8080":                  0,
		"localhost:80 localhost:81":          0,
		"--write-stall 1m - localhost:80":    time.Minute,
		"--write-stall 1m 8080 localhost:80": time.Minute,
		"--write-stall 0 8080 localhost:80":  0,
	} {
		f, words, argv, err := parseFlags(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.plan(words, argv, f)
		if err != nil {
			t.Fatal(err)
		}
		if got := newOverload(&app{c: c, p: p, f: f}, 1).budget.Limits().Stall; got != want {
			t.Errorf("%s: %v, want %v", line, got, want)
		}
	}
}
