package cli

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"atelier/common/client"
	"atelier/common/secret"
	"atelier/tuner/data/scrape"

	ucli "github.com/urfave/cli/v2"
)

var scrapeFlags = []ucli.Flag{
	&ucli.StringSliceFlag{Name: "class", Usage: "`CLASS` or CLASS=SEARCH TEXT (may be given again; without a text: the class's name and \"house exterior\")"},
	&ucli.StringFlag{Name: "classes", Usage: "`FILE` with a CLASS or CLASS=SEARCH TEXT a line"},
	&ucli.IntFlag{Name: "per-class", Value: 100, Usage: "`N` images of each class"},
	&ucli.StringFlag{Name: "key-file", Usage: "`FILE` of mode 0600 with the SerpAPI key (default: SERPAPI_API_KEY)"},
	&ucli.StringFlag{Name: "endpoint", EnvVars: []string{"SERPAPI_ENDPOINT"}, Value: scrape.Endpoint, Usage: "`URL` of SerpAPI or a test server"},
	&ucli.BoolFlag{Name: "dry-run", Usage: "print what is there, what would be searched and, where it can be asked, what the account allows; download nothing"},
}

// dataScrape spends searches that cost money: --dry-run says how many, and a scrape that is run again goes on where it
// was.
func (e *Env) dataScrape() *ucli.Command {
	return verb(&ucli.Command{Name: "scrape", Usage: "download images by image search (SerpAPI), one folder per class", ArgsUsage: "FOLDER",
		Description: "Searches page by page until each class has enough, downloads politely (robots.txt, two at once a host,\n" +
			"sizes checked before decoding, no private addresses), and writes every address tried to\n" +
			"FOLDER/scrape.jsonl, with its source: run again to continue. Check the images' licences.",
		Flags: append(append([]ucli.Flag{}, scrapeFlags...), outputFlag()), Action: e.scrape}, 1, 1,
		"atelier data scrape raw --class gothic --class 'tudor=tudor revival house' --dry-run", "atelier data scrape raw --classes styles.txt --per-class 200 --key-file ~/.serpapi")
}

// scrapeQueries are the classes asked for.
func (e *Env) scrapeQueries(c *ucli.Context) ([]scrape.Query, error) {
	lines := c.StringSlice("class")
	if name := c.String("classes"); name != "" {
		f, err := os.Open(e.path(name))
		if err != nil {
			return nil, fmt.Errorf("data scrape: --classes: %w", err)
		}
		defer f.Close()
		s := bufio.NewScanner(f)
		// The file takes the words of --class, blank lines and comments.
		for s.Scan() {
			if text := strings.TrimSpace(s.Text()); text != "" && !strings.HasPrefix(text, "#") {
				lines = append(lines, text)
			}
		}
		if err := s.Err(); err != nil {
			return nil, fmt.Errorf("data scrape: %s: %w", name, err)
		}
	}
	if len(lines) == 0 {
		return nil, usage("data scrape: name classes with --class or --classes")
	}
	var queries []scrape.Query
	seen := map[string]bool{}
	for _, l := range lines {
		class, text, ok := strings.Cut(l, "=")
		class = strings.TrimSpace(class)
		if !ok {
			text = strings.NewReplacer("_", " ", "-", " ").Replace(class) + " house exterior"
		}
		if seen[class] {
			return nil, usage("data scrape: class %s is given twice", class)
		}
		seen[class] = true
		queries = append(queries, scrape.Query{Class: class, Text: strings.TrimSpace(text)})
	}
	return queries, nil
}

// scrapeOptions reads the key from its file or the environment, never from a flag, which other
// users of the machine could see.
func (e *Env) scrapeOptions(c *ucli.Context, out string) (scrape.Options, error) {
	queries, err := e.scrapeQueries(c)
	if err != nil {
		return scrape.Options{}, err
	}
	file := c.String("key-file")
	if file != "" {
		file = e.path(file)
	}
	key, err := scrape.ReadKey(file, secret.FromEnv)
	if err != nil && (!c.Bool("dry-run") || file != "") {
		return scrape.Options{}, fmt.Errorf("data scrape: %w", err)
	}
	return scrape.Options{Out: out, Queries: queries, PerClass: c.Int("per-class"), Key: key, Endpoint: c.String("endpoint"),
		Log: slog.New(slog.NewTextHandler(e.Err, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Progress: func(class string, saved, wanted int) {
			if e.Live {
				e.redraw(fmt.Sprintf("%s: %d of %d images", class, saved, wanted))
			}
		}}, nil
}

// scrape prints what each class has come to, also when a search failed half way: what was
// downloaded stays, and the same command goes on. A key that SerpAPI refuses is exit code 4.
func (e *Env) scrape(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	out := e.path(c.Args().First())
	o, err := e.scrapeOptions(c, out)
	if err != nil {
		return err
	}
	// The same table of what is and what would be.
	run, done := scrape.Run, "new"
	if c.Bool("dry-run") {
		run, done = scrape.Plan, "missing"
	}
	r, err := run(c.Context, o)
	if e.Live {
		e.redraw("")
	}
	if r != nil && len(r.Classes) > 0 {
		if err := e.print(c, r, func() table {
			t := table{head: []string{"CLASS", "SEARCH TEXT", "IMAGES", strings.ToUpper(done), "REFUSED", "SEARCHES"}, flex: []string{"SEARCH TEXT"}}
			for _, x := range r.Classes {
				t.rows = append(t.rows, []string{x.Class, x.Text, strconv.Itoa(x.Saved), strconv.Itoa(x.New), strconv.Itoa(x.Refused), strconv.Itoa(x.Searches)})
			}
			return t
		}); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, scrape.ErrKey):
		return &exitError{client.ExitRefused, "data scrape: " + err.Error(), err}
	case err != nil && r != nil && c.Bool("dry-run") && c.Context.Err() == nil:
		e.say("the quota is not known: %s", err)
		return nil
	case err != nil:
		return fmt.Errorf("data scrape: %w", err)
	case c.Bool("dry-run"):
		needed := 0
		for _, x := range r.Classes {
			needed += x.Searches
		}
		if r.Quota == nil {
			e.say("this takes about %s; the quota is not known without a SerpAPI key (SERPAPI_API_KEY or --key-file)", plural(needed, "search"))
		} else {
			e.say("this takes about %s; %s left this month", plural(needed, "search"), thousands(r.Quota.Left))
		}
		return nil
	}
	e.say("%s left this month; addresses and sources are in %s", plural(r.Quota.Left, "search"), e.relative(filepath.Join(out, scrape.Manifest)))
	return nil
}

// dataAll is scrape, cleanup and split in one.
func (e *Env) dataAll() *ucli.Command {
	return verb(&ucli.Command{Name: "all", Usage: "scrape, clean up and split", ArgsUsage: "RAW OUT",
		Description: "RAW takes the downloads, OUT the split; each step reports what it did and can be run alone.",
		Flags: append(append([]ucli.Flag{}, scrapeFlags...),
			&ucli.StringFlag{Name: "quarantine", Usage: "`FOLDER` for what cleanup takes out (default: RAW_quarantine)"},
			&ucli.IntFlag{Name: "min-side", Value: 32, Usage: "a shorter side below `PIXELS` is too small"},
			&ucli.BoolFlag{Name: "near", Usage: "mirrored and cropped images are taken out too"},
			&ucli.StringFlag{Name: "ratios", Value: "0.7,0.15,0.15", Usage: "`SHARES` of train, validation and test"},
			&ucli.Uint64Flag{Name: "seed", Value: 42, Usage: "`SEED` of the draw"},
			&ucli.BoolFlag{Name: "link", Usage: "hard links in place of copies"},
			outputFlag()), Action: func(c *ucli.Context) error {
			for _, step := range []func(*ucli.Context) error{e.scrape, e.cleanup, e.split} {
				if err := step(c); err != nil {
					return err
				}
				if c.Bool("dry-run") {
					return nil // nothing was downloaded that could be looked at
				}
			}
			return nil
		}}, 2, 2,
		"atelier data all raw architectural_style_images --classes styles.txt --per-class 200")
}
