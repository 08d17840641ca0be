package cli

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"atelier/common/client"
	"atelier/common/terminal"
	"atelier/tuner/data/cleanup"
	"atelier/tuner/data/split"

	ucli "github.com/urfave/cli/v2"
)

// dataCleanup moves files of a person's, so it refuses folders that are something else, can be
// rehearsed (--dry-run) and taken back (--undo).
func (e *Env) dataCleanup() *ucli.Command {
	return verb(&ucli.Command{Name: "cleanup", Usage: "move broken, small and duplicate images into a quarantine", ArgsUsage: "FOLDER [IMAGE...]",
		Description: "FOLDER has one subfolder of images per class. Files that are not images despite their extension, broken\n" +
			"ones, small ones, byte copies and the same image encoded again or at another size go to a quarantine\n" +
			"beside it, each with its reason in quarantine.jsonl; the largest of a set stays. Mirrored and cropped\n" +
			"images are reported, and moved with --near. The same image under two classes is reported and never\n" +
			"moved. Files with other endings and hidden ones stay. Nothing is deleted, and --undo brings back what was\n" +
			"moved: all of it, or the IMAGEs and folders given as the report lists them. A folder that contains\n" +
			"something else (a cluster's data, models, a repository), no image, or many other files is refused.\n" +
			"The report goes to standard output.",
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "dry-run", Usage: "report and move nothing"},
			&ucli.StringFlag{Name: "quarantine", Usage: "`FOLDER` for what goes (default: FOLDER_quarantine)"},
			&ucli.IntFlag{Name: "min-side", Value: 32, Usage: "a shorter side below `PIXELS` is too small"},
			&ucli.BoolFlag{Name: "near", Usage: "mirrored and cropped images are moved too"},
			&ucli.BoolFlag{Name: "other-files", Usage: "files without an image extension are checked too, and moved unless they are images"},
			&ucli.BoolFlag{Name: "force", Usage: "it is an image folder although more than a third of its files are not images"},
			&ucli.BoolFlag{Name: "undo", Usage: "move back what was moved to the quarantine"},
			outputFlag(),
		}, Action: e.cleanup}, 1, -1,
		"atelier data cleanup images --dry-run", "atelier data cleanup images", "atelier data cleanup images --near -o json",
		"atelier data cleanup images --undo", "atelier data cleanup images --undo gothic/012.jpg tudor")
}

// dataSplit remembers in OUT what it was asked for: other ratios or another seed for the same OUT
// are refused, for images would change parts.
func (e *Env) dataSplit() *ucli.Command {
	return verb(&ucli.Command{Name: "split", Usage: "copy an image folder into train, validation and test", ArgsUsage: "FOLDER OUT",
		Description: "Class by class by ratio and seed; copies of an image (also encoded again, mirrored or cropped) stay\n" +
			"together. Run again after images were added, it adds the new ones and moves none: OUT/split.json\n" +
			"remembers. FOLDER is not changed.",
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "ratios", Value: "0.7,0.15,0.15", Usage: "`SHARES` of train, validation and test"},
			&ucli.Uint64Flag{Name: "seed", Value: 42, Usage: "`SEED` of the draw"},
			&ucli.BoolFlag{Name: "link", Usage: "hard links in place of copies"},
			outputFlag(),
		}, Action: e.split}, 2, 2,
		"atelier data split images architectural_style_images", "atelier data split images out --ratios 0.8,0.1,0.1 --seed 7 --link")
}

// cleanup reports, then moves what goes into the quarantine, never deletes. The report is out
// before anything moves, so that it is there even if the disk fails half way; the quarantine's
// record has what was moved until then.
func (e *Env) cleanup(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	if c.Int("min-side") < 1 {
		return usage("data cleanup: --min-side %d: want at least 1", c.Int("min-side"))
	}
	dir := e.path(c.Args().First())
	quarantine := dir + "_quarantine"
	if q := c.String("quarantine"); q != "" {
		quarantine = e.path(q)
	}
	// `data all` comes this way, too, and has arguments of its own.
	if c.Command.Name == "cleanup" {
		if c.Bool("undo") {
			return e.undoCleanup(c, dir, quarantine)
		}
		if c.NArg() > 1 {
			return usage("data cleanup: %q: single images can be given with --undo only", c.Args().Get(1))
		}
	}
	r, err := cleanup.Look(c.Context, dir, cleanup.Options{MinSide: c.Int("min-side"), Near: c.Bool("near"), Others: c.Bool("other-files"), Force: c.Bool("force"), Workers: runtime.GOMAXPROCS(0), Progress: e.imageProgress()})
	var refused *cleanup.RefusedError
	if errors.As(err, &refused) {
		return usage("data cleanup: %s", refused)
	}
	if err != nil {
		return err
	}
	if err := e.print(c, r, func() table {
		t := table{head: []string{"IMAGE", "REASON", "DETAIL"}, prose: "DETAIL"}
		for _, f := range r.Go {
			t.rows = append(t.rows, []string{f.Path, f.Reason, f.Detail})
		}
		for _, f := range r.Similar {
			t.rows = append(t.rows, []string{f.Path, "stays", f.Detail})
		}
		for _, f := range r.WrongName {
			t.rows = append(t.rows, []string{f.Path, "stays", f.Detail})
		}
		for _, x := range r.Conflicts {
			t.rows = append(t.rows, []string{x.Paths[0], "label conflict", x.Kind + " of " + x.Paths[1]})
		}
		if len(t.rows) == 0 {
			return table{} // a head without rows says nothing
		}
		return t
	}); err != nil {
		return err
	}
	e.say("%s, %s; %s to go, %s similar, %s under two classes", plural(r.Files, "file"), plural(r.Images, "image"), thousands(len(r.Go)), thousands(len(r.Similar)), thousands(len(r.Conflicts)))
	for _, text := range r.LeftOut {
		e.say("left alone: %s", text)
	}
	if c.Bool("dry-run") || len(r.Go) == 0 {
		return nil
	}
	e.say("moving %s to %s: %s", counted(len(r.Go), "file"), e.relative(quarantine), reasons(r.Go))
	moved, err := r.Move(c.Context, quarantine, e.Now())
	if err != nil {
		return fmt.Errorf("data cleanup: %d of %d moved: %w", moved, len(r.Go), err)
	}
	e.say("%s moved; %s there gives the reasons; undo with: atelier data cleanup %s --undo", counted(moved, "file"), cleanup.Manifest, e.relative(dir))
	return nil
}

// reasons counts findings by reason, the most frequent first.
func reasons(all []cleanup.Finding) string {
	n := map[string]int{}
	for _, f := range all {
		n[f.Reason]++
	}
	order := slices.SortedFunc(maps.Keys(n), func(a, b string) int { return cmp.Or(cmp.Compare(n[b], n[a]), strings.Compare(a, b)) })
	for i, r := range order {
		order[i] = fmt.Sprintf("%d %s", n[r], r)
	}
	return strings.Join(order, ", ")
}

// undoCleanup moves images back from a quarantine.
func (e *Env) undoCleanup(c *ucli.Context, dir, quarantine string) error {
	for _, f := range []string{"dry-run", "near", "other-files", "force"} {
		if c.IsSet(f) {
			return usage("data cleanup: --undo looks at nothing; it does not take --%s", f)
		}
	}
	u, err := cleanup.Undo(c.Context, dir, quarantine, c.Args().Tail(), e.Now())
	if u != nil {
		for _, name := range u.Back {
			fmt.Fprintln(e.Out, terminal.Line(name))
		}
		for _, name := range u.Taken {
			e.say("%s stays in the quarantine: there is another file of that name", name)
		}
		for _, name := range u.Unknown {
			e.say("%s is not in the quarantine's record", name)
		}
		e.say("%s moved back from %s", counted(len(u.Back), "file"), e.relative(quarantine))
	}
	if err != nil {
		return fmt.Errorf("data cleanup: %w", err)
	}
	if len(u.Unknown) > 0 {
		return &exitError{code: client.ExitNotFound}
	}
	if len(u.Taken) > 0 {
		return &exitError{code: client.ExitError}
	}
	return nil
}

type splitRecord struct {
	Class      string `json:"class"`
	Train      int    `json:"train"`
	Validation int    `json:"validation"`
	Test       int    `json:"test"`
}

// split copies or links, and never moves: FOLDER stays as it is. Doing it again places what is new
// and moves nothing, so that results on the test part stay comparable.
func (e *Env) split(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	o := split.Options{Seed: c.Uint64("seed"), Link: c.Bool("link"), Workers: runtime.GOMAXPROCS(0), Progress: e.imageProgress(), Say: e.warn}
	shares := strings.Split(c.String("ratios"), ",")
	if len(shares) != len(o.Ratios) {
		return usage("data split: --ratios %s: want three shares, such as 0.7,0.15,0.15", c.String("ratios"))
	}
	for i, s := range shares {
		v, err := metric(strings.TrimSpace(s))
		if err != nil {
			return usage("data split: --ratios %s: %s", c.String("ratios"), err)
		}
		o.Ratios[i] = v
	}
	if err := split.Check(o.Ratios); err != nil {
		return usage("data split: --ratios %s: %s", c.String("ratios"), err)
	}
	to := e.path(c.Args().Get(1))
	r, err := split.Split(c.Context, e.path(c.Args().First()), to, o)
	if err != nil {
		return err
	}
	var records []splitRecord
	for i, class := range r.Classes {
		records = append(records, splitRecord{class, r.Counts["train"][i], r.Counts["validation"][i], r.Counts["test"][i]})
	}
	if err := e.print(c, records, func() table {
		t := table{head: []string{"CLASS", "TRAIN", "VALIDATION", "TEST"}}
		for _, x := range records {
			t.rows = append(t.rows, []string{x.Class, strconv.Itoa(x.Train), strconv.Itoa(x.Validation), strconv.Itoa(x.Test)})
		}
		return t
	}); err != nil {
		return err
	}
	for i, x := range records {
		var none []string
		for p, part := range split.Parts {
			if o.Ratios[p] > 0 && r.Counts[part][i] == 0 {
				none = append(none, part)
			}
		}
		if len(none) > 0 {
			e.say("warning: %s has too few images for %s: training takes it, but its accuracy cannot be measured there", x.Class, strings.Join(none, " and "))
		}
	}
	for _, s := range r.Skipped {
		e.say("left out, not an image: %s", s)
	}
	for _, s := range r.Apart {
		e.say("warning: %s is a copy of an image in another part; both were placed before", s)
	}
	if n := len(r.Gone); n > 0 {
		e.say("%d images that were split before are gone from the folder; their copies stay, such as %s", n, r.Gone[0])
	}
	e.say("%d new images; %d groups of duplicates kept together; %s", r.New, r.Groups, e.relative(filepath.Join(to, split.Manifest)))
	return nil
}
