package docs_test

import (
	"regexp"
	"strings"
	"testing"
)

var joins = regexp.MustCompile(`(?:--join |_JOIN=)(\S+:\d+\S*)`)

// A program that joins gets the addresses of all three machines: with one of them it
// would not start while that one is down.
func TestJoinNamesAllMachines(t *testing.T) {
	found := 0
	for name, text := range pages(t) {
		for _, m := range joins.FindAllStringSubmatch(text, -1) {
			found++
			if n := len(strings.Split(m[1], ",")); n < 3 {
				t.Errorf("%s: %s names %d machines", name, m[0], n)
			}
		}
	}
	if found < 5 {
		t.Errorf("%d joins are on the pages", found)
	}
	if m := joins.FindStringSubmatch("atelier-coordinator --id b --join a:7602 --insecure"); m == nil || m[1] != "a:7602" {
		t.Errorf("%q", m)
	}
}
