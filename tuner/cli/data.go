package cli

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"atelier/common/dataset"

	ucli "github.com/urfave/cli/v2"
)

func (e *Env) dataCommands() *ucli.Command {
	return group("data", "image folders and packed image sets",
		verb(&ucli.Command{Name: "pack", Usage: "decode and resize an image folder once, into one file", ArgsUsage: "FOLDER",
			Description: "Trainers do this by themselves; packing ahead saves the first one the wait. Pictures\n" +
				"that cannot be decoded are named and left out. The path goes to standard output.",
			Flags: []ucli.Flag{
				&ucli.IntFlag{Name: "size", Value: 64, Usage: "side of the packed squares in `PIXELS`"},
				&ucli.StringFlag{Name: "cache", Usage: "`FOLDER` that takes the file (default: the user's cache folder)"},
				&ucli.IntFlag{Name: "workers", Usage: "decode `N` pictures at a time; 0 = one a core"},
			}, Action: e.pack}, 1, 1,
			"atelier data pack data/facades/train --size 64"),
		verb(&ucli.Command{Name: "info", Usage: "classes and pictures of an image folder or a packed set", ArgsUsage: "FOLDER|FILE",
			Flags: []ucli.Flag{outputFlag()}, Action: e.dataInfo}, 1, 1,
			"atelier data info data/facades/train", "atelier data info data/facades/train -o json"),
	)
}

func (e *Env) pack(c *ucli.Context) error {
	folder, err := dataset.List(e.path(c.Args().First()))
	if err != nil {
		return err
	}
	cache := c.String("cache")
	if cache != "" {
		cache = e.path(cache)
	}
	var last time.Time
	path, report, err := dataset.PackContext(c.Context, folder, dataset.PackOptions{Size: c.Int("size"), CacheDir: cache, Workers: c.Int("workers"),
		Progress: func(done, total int) {
			if e.Live && (done == total || e.Now().Sub(last) > 100*time.Millisecond) {
				last = e.Now()
				fmt.Fprintf(e.Err, "\r\x1b[K%d/%d pictures", done, total)
				if done == total {
					fmt.Fprint(e.Err, "\r\x1b[K")
				}
			}
		}})
	if err != nil {
		return err
	}
	for _, s := range report.Skipped {
		e.say("skipped %s: %s", s.Path, s.Reason)
	}
	how := "packed"
	if report.Cached {
		how = "packed earlier"
	}
	e.say("%d pictures %s, %d skipped, %s", report.Images, how, len(report.Skipped), bytesOf(report.Bytes))
	_, err = fmt.Fprintln(e.Out, path)
	return err
}

type classRecord struct {
	Class  string `json:"class"`
	Index  int    `json:"index"`
	Images int    `json:"images"`
}

func (e *Env) dataInfo(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	path := e.path(c.Args().First())
	var classes []string
	var counts []int
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
		set, err := dataset.OpenPack(path)
		if err != nil {
			return err
		}
		defer set.Close()
		classes, counts = set.Classes(), set.Counts()
		e.say("packed set of %d pictures, %d x %d pixels, %d skipped when it was packed, SHA-256 %s", set.Len(), set.Size(), set.Size(), len(set.Skipped()), set.Digest())
	} else {
		folder, err := dataset.List(path)
		if err != nil {
			return err
		}
		classes, counts = folder.Classes, folder.Counts()
		e.say("image folder of %d pictures in %d classes", len(folder.Files), len(classes))
	}
	records := []classRecord{}
	for i, name := range classes {
		records = append(records, classRecord{name, i, counts[i]})
	}
	return e.print(c, records, func() table {
		t := table{head: []string{"INDEX", "CLASS", "PICTURES"}}
		for _, r := range records {
			t.rows = append(t.rows, []string{strconv.Itoa(r.Index), r.Class, strconv.Itoa(r.Images)})
		}
		return t
	})
}
