package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"atelier/common/trainerproto"
)

// stepsAgain counts, by the number of the view, the members of a run whose step in hand
// had to be done again, as the logs of their trainers say. A log that cannot be read
// counts none.
func (m *machines) stepsAgain(sweep string, run int32) map[int32]int {
	n := map[int32]int{}
	for _, w := range m.Workers {
		dir := filepath.Join(w.Dir, "logs", sweep, "1")
		names, _ := filepath.Glob(filepath.Join(dir, fmt.Sprintf("run-%d.log*", run)))
		more, _ := filepath.Glob(filepath.Join(dir, fmt.Sprintf("run-%d-member-*.log*", run)))
		for _, name := range append(names, more...) {
			f, err := os.Open(name)
			if err != nil {
				continue
			}
			for s := bufio.NewScanner(f); s.Scan(); {
				_, rest, ok := strings.Cut(s.Text(), "msg="+strconv.Quote(trainerproto.LogAgain)+" ")
				if !ok {
					continue
				}
				for _, word := range strings.Fields(rest) {
					if text, ok := strings.CutPrefix(word, "view="); ok {
						if view, err := strconv.ParseInt(text, 10, 32); err == nil {
							n[int32(view)]++
						}
					}
				}
			}
			f.Close()
		}
	}
	return n
}
