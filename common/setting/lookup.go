package setting

import (
	"strings"

	"atelier/common/nearest"
)

// Lookup finds the row of a path as a person writes it: space.lr.low for
// space.NAME.low, objectives[0].metric or objectives.metric for
// objectives[].metric. Where a name may be anything it may have dots if a key of
// the table has that name (augmentation.cutmix.alpha). nil where there is none.
func (t Table) Lookup(path string) *Setting {
	if s := t.Find(path); s != nil {
		return s
	}
	var best *Setting
	literal := -1
	for i := range t {
		if n, ok := matches(strings.Split(t[i].Name, "."), strings.Split(path, "."), t); ok && n > literal {
			best, literal = &t[i], n
		}
	}
	return best
}

// matches reports whether a path is one of a row's, and how many of the row's
// parts it has word for word.
func matches(row, path []string, t Table) (literal int, ok bool) {
	switch {
	case len(row) == 0 || len(path) == 0:
		return 0, len(row) == len(path)
	case row[0] == path[0] || strings.HasSuffix(row[0], "[]") && item(path[0], row[0]):
		n, ok := matches(row[1:], path[1:], t)
		return n + 1, ok
	case !anyName(row[0]) || path[0] == "":
		return 0, false
	}
	for n := 1; n <= len(path); n++ {
		if n > 1 && !t.tail(strings.Join(path[:n], ".")) {
			continue
		}
		if literal, ok := matches(row[1:], path[n:], t); ok {
			return literal, true
		}
	}
	return 0, false
}

// item reports whether a part is an item of a list, or the list itself.
func item(part, list string) bool {
	name := strings.TrimSuffix(list, "[]")
	rest, ok := strings.CutPrefix(part, name)
	return ok && (rest == "" || strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "]"))
}

// anyName reports whether a part stands for a name of a person's own.
func anyName(part string) bool {
	return part != "" && strings.Trim(part, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// tail reports whether a key of the table ends so, below another part.
func (t Table) tail(name string) bool {
	for _, s := range t {
		if strings.HasSuffix(s.Name, "."+name) {
			return true
		}
	}
	return false
}

// Nearest is the row's name that an unknown path most likely stands for, with the
// person's own names in it; "" where there is none.
func (t Table) Nearest(path string) string {
	if s := t.Alias(path); s != nil {
		return s.Name
	}
	// What is right of it from the left stays as it was written.
	parts := strings.Split(path, ".")
	for n := len(parts) - 1; n > 0; n-- {
		head := strings.Join(parts[:n], ".")
		row := t.Lookup(head)
		if row == nil {
			continue
		}
		var below []string
		for _, s := range t.Below(row.Name) {
			below = append(below, strings.TrimPrefix(s.Name, row.Name+"."))
		}
		if word := nearest.Word(strings.Join(parts[n:], "."), below); word != "" {
			return head + "." + word
		}
	}
	return t.Near(path)
}
