package cli

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/setting"
	"atelier/tuner/session"
)

// resumables are the folders of trainings or tunings that --resume may be given,
// the newest first, each with how far it came; the shell's files where the word
// begins otherwise. Where they lie is the document's folder of results.
func (e *Env) resumables(d *setting.Document, last, before string) []candidate {
	row := d.Table.Find("checkpoints_dir")
	if row == nil {
		return shellFiles
	}
	root, _ := row.Default.(string)
	type found struct {
		dir, what string
		at        int64
	}
	var all []found
	for _, depth := range []string{"*", "*/*"} {
		files, _ := filepath.Glob(filepath.Join(e.path(root), depth, session.ResumeDir, session.RunFile)) // the pattern is well formed
		for _, file := range files {
			dir := filepath.Dir(filepath.Dir(file))
			st, err := os.Stat(file)
			if err != nil || !strings.HasPrefix(e.relative(dir), last) {
				continue
			}
			// A tuning notes how it ended in its run.json, a training in its history.
			what := ""
			for _, name := range []string{file, filepath.Join(dir, "training_history.json")} {
				var of struct{ Status string }
				if b, err := os.ReadFile(name); err == nil && json.Unmarshal(b, &of) == nil && of.Status != "" {
					what = of.Status
				}
			}
			all = append(all, found{e.relative(dir), what, st.ModTime().UnixNano()})
		}
	}
	if len(all) == 0 {
		return shellFiles
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(b.at, a.at) })
	var out []candidate
	for _, f := range all {
		out = append(out, candidate{before + f.dir, f.what})
	}
	return out
}
