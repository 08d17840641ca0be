package cli

import (
	"os"
	"path/filepath"
	"strings"

	"atelier/tuner/train"
)

// next prints where the files of a training are and what to do with them.
func (e *Env) next(r *train.Result) {
	folder := e.relative(r.Folder)
	for _, x := range [][2]string{{"model", train.BestFile}, {"curve", train.CurveFile}, {"report", train.DiagnosticsFile}} {
		if _, err := os.Stat(filepath.Join(r.Folder, x[1])); err == nil {
			e.say("  %-7s %s", x[0], filepath.Join(folder, x[1]))
		}
	}
	e.tracked(r.Hint)
	model := filepath.Join(folder, train.BestFile)
	images := r.Plan.TestDir()
	if images == "" {
		images = r.Plan.Settings.Validation
	}
	e.nextCommands(model, images)
}

// nextCommands are what to do with a model, ready to be pasted.
func (e *Env) nextCommands(model, images string) {
	e.say("Next:")
	e.paste("", "atelier", "infer", "--checkpoint "+quoted(model), "--image-dir "+quoted(e.relative(images)))
	e.paste("", "atelier", "serve", "--checkpoint "+quoted(model))
}

// paste shows a command line that is ready to be pasted, behind what it is for. On a terminal that is too narrow for
// it the words go on lines of their own, joined for the shell by a backslash; elsewhere it is one line.
func (e *Env) paste(what string, words ...string) {
	line := "  " + what + strings.Join(words, " ")
	if !e.Live || len([]rune(line)) <= e.Width() {
		e.say("%s", line)
		return
	}
	if what != "" {
		e.say("  %s", strings.TrimSpace(what))
		what = "  "
	}
	var parts []string // an option too long for a line is taken apart from its value
	for _, w := range words {
		if option, value, ok := strings.Cut(w, " "); ok && len([]rune("    "+what+w+" \\")) > e.Width() {
			parts = append(parts, option, value)
			continue
		}
		parts = append(parts, w)
	}
	line = "  " + what
	for i, w := range parts {
		switch {
		case i == 0:
			line += w
		case len([]rune(line+" "+w))+2 <= e.Width():
			line += " " + w
		default:
			e.say("%s \\", line)
			line = "    " + what + w
		}
	}
	e.say("%s", line)
}

// tracked prints how to look at what MLflow has, and the other way that there is.
func (e *Env) tracked(hint []string) {
	for i, h := range hint {
		label := "MLflow, to look at it: "
		if i > 0 {
			label = "MLflow, or into a database first: "
		}
		e.paste(label, strings.Fields(h)...)
	}
}

// quoted is a word for a POSIX shell, in quotes where it needs them.
func quoted(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:,@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
