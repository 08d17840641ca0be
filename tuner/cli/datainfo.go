package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/tuner/data/info"

	ucli "github.com/urfave/cli/v2"
)

// dataInfo looks and changes nothing.
func (e *Env) dataInfo() *ucli.Command {
	return verb(&ucli.Command{Name: "info", Usage: "classes, sizes, formats and balance of an image folder or a packed set", ArgsUsage: "FOLDER|FILE",
		Description: "FOLDER has one subfolder of images per class, or train, validation and test with those in each; FILE is\n" +
			"what `atelier data pack` wrote. With --sheet some images of each class go into one PNG, to be looked at.\n" +
			"Only headers are read: broken images are found by `atelier data cleanup`.",
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "sheet", Usage: "write a contact sheet to `FILE` (PNG)"},
			overwriteFlag(),
			&ucli.IntFlag{Name: "per-class", Value: 8, Usage: "`N` images of each class on the sheet, 1 to 100"},
			outputFlag(),
		}, Action: e.info}, 1, 1,
		"atelier data info data/facades", "atelier data info data/facades/train -o json", "atelier data info data/facades --sheet facades.png --per-class 12")
}

// classRecord is a class in CSV, which has no place for lists of lists.
type classRecord struct {
	Class        string  `json:"class"`
	Index        int     `json:"index"`
	Images       int     `json:"images"`
	Share        float64 `json:"share"`
	Train        int     `json:"train"`
	Validation   int     `json:"validation"`
	Test         int     `json:"test"`
	Bytes        int64   `json:"bytes"`
	MedianWidth  int64   `json:"median_width"`
	MedianHeight int64   `json:"median_height"`
}

// info reads headers alone and changes nothing. Where the sheet is to go is looked at before the
// folder is read.
func (e *Env) info(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	if n := c.Int("per-class"); n < 1 || n > 100 {
		return usage("data info: --per-class %d: want 1 to 100", n)
	}
	sheet, replaces := c.String("sheet"), false
	if sheet != "" {
		var err error
		if replaces, err = e.place(c, e.path(sheet), nil); err != nil {
			return err
		}
	}
	n, err := info.Look(c.Context, e.path(c.Args().First()), e.imageProgress())
	if err != nil {
		return err
	}
	defer n.Close()
	// CSV has no place for a class's lists: it gets a row a class.
	var records any = n
	if c.String("output") == "csv" {
		rows := []classRecord{}
		for _, k := range n.Classes {
			rows = append(rows, classRecord{k.Class, k.Index, k.Images, k.Share, k.Parts["train"], k.Parts["validation"], k.Parts["test"], k.Bytes, k.Width.Median, k.Height.Median})
		}
		records = rows
	}
	if err := e.print(c, records, func() table { return infoTable(n) }); err != nil {
		return err
	}
	e.sayInfo(n)
	if sheet != "" {
		img, err := n.Sheet(c.Context, c.Int("per-class"), time.Now())
		if err != nil {
			return err
		}
		if err := info.Save(e.path(sheet), img); err != nil {
			return fmt.Errorf("data info: write the contact sheet: %w", err)
		}
		e.replaced(c, e.path(sheet), replaces)
		e.say("contact sheet: %s", e.relative(e.path(sheet)))
	}
	return nil
}

// infoTable has a row a class, and one for all.
func infoTable(n *info.Info) table {
	t := table{head: []string{"INDEX", "CLASS", "IMAGES", "SHARE"}, flex: []string{"CLASS"}}
	for _, p := range n.Parts {
		t.head = append(t.head, strings.ToUpper(p.Part))
	}
	t.head = append(t.head, "WIDTH", "HEIGHT", "SIZE", "FORMATS")
	row := func(index, class string, images int, share float64, part func(string) int, width, height info.Spread, bytes int64, formats map[string]int) {
		r := []string{index, class, strconv.Itoa(images), fmt.Sprintf("%.1f %%", 100*share)}
		for _, p := range n.Parts {
			r = append(r, strconv.Itoa(part(p.Part)))
		}
		t.rows = append(t.rows, append(r, between(width), between(height), bytesOf(bytes), countsOf(formats)))
	}
	for _, c := range n.Classes {
		row(strconv.Itoa(c.Index), c.Class, c.Images, c.Share, func(p string) int { return c.Parts[p] }, c.Width, c.Height, c.Bytes, c.Format)
	}
	if len(n.Classes) > 1 {
		// The shares of no images at all are 0, not NaN.
		all := 0.0
		if n.Images > 0 {
			all = 1
		}
		row("", "all", n.Images, all, func(p string) int {
			return n.Parts[slices.IndexFunc(n.Parts, func(x info.Part) bool { return x.Part == p })].Images
		}, n.Width, n.Height, n.Bytes, n.Formats)
	}
	return t
}

// between is least..median..most, or the one they all are.
func between(s info.Spread) string {
	if s.Min == s.Max {
		return strconv.FormatInt(s.Median, 10)
	}
	return fmt.Sprintf("%d..%d..%d", s.Min, s.Median, s.Max)
}

// countsOf lists formats, the most frequent first; a single one without its number.
func countsOf(m map[string]int) string {
	if len(m) == 0 {
		return "-"
	}
	keys := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		if m[a] != m[b] {
			return m[b] - m[a]
		}
		return strings.Compare(a, b)
	})
	if len(keys) == 1 {
		return keys[0]
	}
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%s %d", k, m[k])
	}
	return strings.Join(keys, ", ")
}

// uneven is the ratio of class sizes from which it is worth a word.
const uneven = 2.0

// sayInfo says what the table has no place for.
func (e *Env) sayInfo(n *info.Info) {
	e.say("%s", n)
	if n.Digest != "" {
		e.say("SHA-256 %s", n.Digest)
	}
	e.warn(n.Notes)
	for _, p := range n.Parts {
		e.say("%s: %s, %.1f %%", p.Part, plural(p.Images, "image"), 100*p.Share)
	}
	for _, c := range n.Classes {
		for _, p := range n.Parts {
			if c.Parts[p.Part] == 0 {
				e.say("warning: no images of %s in %s: training and evaluation want every class in every part", c.Class, p.Part)
			}
		}
		if c.Images == 0 && len(n.Parts) == 0 {
			e.say("warning: no images of %s", c.Class)
		}
	}
	if b := n.Balance; b.Ratio >= uneven {
		e.say("uneven: %s has %.1f times as many images as %s; more images of the small classes help most, --set class_weights=balanced in training helps too", b.Largest, b.Ratio, b.Smallest)
	}
	const shown = 5
	for i, f := range n.Faults {
		if i == shown {
			e.say("and %d more; `atelier data cleanup --dry-run` lists all", len(n.Faults)-shown)
			break
		}
		if n.Kind == info.Pack {
			e.say("left out when it was packed: %s: %s", f.Path, f.Reason)
		} else {
			e.say("not an image: %s: %s", f.Path, f.Reason)
		}
	}
}
