package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/client"
	"atelier/common/setting"
	"atelier/tuner/data/layout"
	"atelier/tuner/data/split"

	ucli "github.com/urfave/cli/v2"
)

// distant reports whether the work goes to machines that see other files than
// this one.
func (e *Env) distant(c *ucli.Context) bool {
	if c.Bool("local") || !c.IsSet("addr") {
		return false
	}
	addrs, err := client.ParseAddrs(c.String("addr"))
	return err == nil && !client.Loopback(addrs)
}

// dataFolders takes --data: a folder with the parts in it, one of the parts, or
// class folders, which are split beside themselves. A test folder need not be
// there.
func (e *Env) dataFolders(c *ucli.Context, conf configuration, parts ...string) error {
	dir := c.String("data")
	if dir == "" {
		return nil
	}
	// A training that is resumed has a folder of its own that paths start from.
	if c.IsSet("resume") || e.distant(c) {
		return e.partsOf(c, conf, dir, parts)
	}
	return e.takeData(c, conf, dir, setting.Flag, "--data", parts)
}

// partsOf takes the parts of a folder by their names alone.
func (e *Env) partsOf(c *ucli.Context, conf configuration, dir string, parts []string) error {
	if l, err := layout.Look(e.path(dir)); err == nil && l.Kind == layout.Classes && !c.IsSet("resume") {
		return usage("%s: --data %s has one folder of images per class, and the workers are on other machines: split it where they see it (atelier data split %s %s), then --data %s",
			c.Command.Name, dir, dir, layout.SplitOf(dir), layout.SplitOf(dir))
	}
	for _, part := range parts {
		var v any = filepath.Join(dir, part)
		if _, err := os.Stat(e.path(v.(string))); err != nil && part == "test" {
			v = nil
		}
		if err := conf.Set("data."+part, v, setting.Flag, "--data"); err != nil {
			return err
		}
	}
	return nil
}

// takeData makes a folder of images ready for a training and sets the keys of
// its parts.
func (e *Env) takeData(c *ucli.Context, conf configuration, dir string, origin setting.Origin, where string, parts []string) error {
	l, err := layout.Look(e.path(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notFound("%s: %s: there is no folder %s%s", c.Command.Name, where, dir, cmp.Or(e.foundHere(), " (atelier data synth DIR draws one)"))
	case err != nil:
		return err
	case l.Kind == layout.Other:
		// --train or --validation may name what the folder lacks.
		if st, err := os.Stat(filepath.Join(l.Dir, "train")); err == nil && st.IsDir() && len(l.Classes) == 0 && origin == setting.Flag {
			return e.partsOf(c, conf, dir, parts)
		}
		return fmt.Errorf("%s: %s", where, l.Why)
	}
	d, err := layout.Ready(c.Context, l, e.imageProgress())
	if err != nil {
		return err
	}
	if !c.Bool("quiet") {
		e.sayReady(d)
	}
	e.warnChanged(d)
	// As it was typed: relative paths stay relative.
	typed := func(path string) string {
		if in, err := setting.Expand(dir, e.home()); err == nil && !filepath.IsAbs(in) {
			if rel, err := filepath.Rel(e.Dir, path); err == nil {
				return rel
			}
		}
		return path
	}
	for _, part := range parts {
		var v any
		if path := map[string]string{"train": d.Train, "validation": d.Validation, "test": d.Test}[part]; path != "" {
			v = typed(path)
		}
		if err := conf.Set("data."+part, v, origin, where); err != nil {
			return err
		}
	}
	return nil
}

// sayReady prints what was done to make a folder ready.
func (e *Env) sayReady(d *layout.Done) {
	if d.From == "" {
		return
	}
	from, to := e.relative(d.From), e.relative(d.Dir)
	switch r := d.Report; {
	case r == nil:
		e.say("%s is split already: using %s", from, to)
	case r.New < d.Images:
		e.say("%s of %s added to its split in %s", counted(r.New, "new image"), from, to)
	default:
		sum := func(part string) (n int) {
			for _, k := range r.Counts[part] {
				n += k
			}
			return n
		}
		e.say("split %s into %s: %d train, %d validation, %d test", from, to, sum("train"), sum("validation"), sum("test"))
	}
	for _, note := range d.Notes {
		e.say("%s", note)
	}
	if d.Report != nil && len(d.Report.Skipped) > 0 {
		e.say("left out, not %s: %s", map[bool]string{true: "an image", false: "images"}[len(d.Report.Skipped) == 1], strings.Join(shorten(d.Report.Skipped, 5), ", "))
	}
	if d.Gone > 0 {
		e.say("%s no longer in %s, still in %s; remove %s and it is split again", counted(d.Gone, "image"), from, to, to)
	}
}

// warnChanged prints, also where quiet is asked for, that images are not those that
// were split, what was done about it, and how to split all of them again.
func (e *Env) warnChanged(d *layout.Done) {
	if len(d.Moved)+len(d.Replaced) == 0 {
		return
	}
	from, to := e.relative(d.From), e.relative(d.Dir)
	var moved []string
	for _, v := range d.Moved {
		moved = append(moved, v.From+" -> "+v.To)
	}
	if n := len(moved); n > 0 {
		e.say("warning: %s moved or relabelled since %s was split, updated in %s: %s", counted(n, "image"), from, to, strings.Join(shorten(moved, 3), ", "))
	}
	if n := len(d.Replaced); n > 0 {
		e.say("warning: %s replaced since %s was split, updated in %s: %s; the earlier content is kept in %s", counted(n, "image"), from, to, strings.Join(shorten(d.Replaced, 3), ", "), filepath.Join(to, split.Replaced))
	}
	e.say("to split all images again: atelier data split %s OUT, then --data OUT", from)
}

// shorten is a list of at most n, and a mark where it had more.
func shorten(list []string, n int) []string {
	if len(list) <= n {
		return list
	}
	return append(list[:n:n], "...")
}

// foundHere tells of the folders of images below the working folder, to be put
// behind an error.
func (e *Env) foundHere() string {
	found := layout.Find(e.Dir)
	if len(found) == 0 {
		return ""
	}
	var all []string
	for _, l := range found {
		all = append(all, fmt.Sprintf("--data %s (%s)", e.relative(l.Dir), l.Describe()))
	}
	return "; found here: " + strings.Join(shorten(all, 4), ", ")
}

// chooseData settles the folder of images where neither flag, environment nor
// file names one and the default is not there: it looks at and below the working
// folder, asks a person, and tells others what it found. images is what stands
// for a key.
func (e *Env) chooseData(c *ucli.Context, q *questions, conf configuration, images func(key string) setting.Value, parts ...string) error {
	v := images("data.train")
	if v.Origin != setting.Default || images("data.validation").Origin != setting.Default || e.distant(c) {
		return nil
	}
	if _, err := os.Stat(e.path(v.Text())); err == nil {
		return nil
	}
	if !e.Ask {
		if found := e.foundHere(); found != "" {
			return usage("%s: no folder of images is given, and %s is not there%s", c.Command.Name, filepath.Dir(v.Text()), found)
		}
		return nil // the plan says what is missing
	}
	q.such = "--data DIR --model resnet18 --no-mlflow"
	l, err := q.folder(c.Context, layout.Find(e.Dir))
	q.such = ""
	if err != nil {
		return err
	}
	return e.takeData(c, conf, l, setting.Prompt, "prompt", parts)
}

// folder asks for a folder of images, by number or name; nothing typed takes the
// first that was found.
func (q *questions) folder(ctx context.Context, found []layout.Layout) (string, error) {
	name := func(l layout.Layout) string {
		if l.Dir == q.e.Dir {
			return "."
		}
		return q.e.relative(l.Dir)
	}
	about := func(l layout.Layout) string {
		if l.Kind == layout.Classes {
			return l.Describe() + "; to be split 70/15/15"
		}
		return l.Describe()
	}
	const most = 9
	found = found[:min(len(found), most)]
	question := "Folder of images (one folder per class in it, or train/ and validation/): "
	switch len(found) {
	case 0:
		q.e.say("No folder of images was found here; atelier data synth run/facades draws one.")
	case 1:
		question = fmt.Sprintf("Folder of images [%s: %s]: ", name(found[0]), about(found[0]))
	default:
		q.e.say("Folders of images here:")
		for i, l := range found {
			q.e.say("  %2d  %-20s %s", i+1, name(l), about(l))
		}
		question = fmt.Sprintf("Folder of images, by number or name [%s]: ", name(found[0]))
	}
	for {
		answer, err := q.ask(ctx, question)
		if err != nil {
			return "", err
		}
		if answer == "" && len(found) > 0 {
			return name(found[0]), nil
		}
		if answer == "" {
			continue
		}
		if n, err := setting.Whole(answer); err == nil && len(found) > 1 && n >= 1 && n <= int64(len(found)) {
			return name(found[n-1]), nil
		}
		switch l, err := layout.Look(q.e.path(answer)); {
		case errors.Is(err, fs.ErrNotExist):
			q.e.say("There is no folder %s.", answer)
		case err != nil:
			q.e.say("%s.", client.Message(err))
		case l.Kind == layout.Other:
			q.e.say("%s.", l.Why)
		default:
			return answer, nil
		}
	}
}
