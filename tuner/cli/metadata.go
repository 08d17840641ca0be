package cli

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"atelier/common/client"
	"atelier/common/metadata"
	"atelier/common/nearest"

	ucli "github.com/urfave/cli/v2"
)

// metadataCommands work on a file of results; no cluster is asked.
func (e *Env) metadataCommands() *ucli.Command {
	return group("metadata", "ask what inference found of many images",
		verb(&ucli.Command{Name: "query", Usage: "list images by suspicion, confidence and class", ArgsUsage: "FILE",
			Description: "FILE is inference_metadata.jsonl, or - for standard input. Conditions are combined with AND. Rows are written\n" +
				"as they are read, so a file of any length needs no more memory than a short one.",
			Flags: []ucli.Flag{
				&ucli.BoolFlag{Name: "suspicious", Usage: "only predictions that quality checks flagged"},
				&ucli.Float64Flag{Name: "low-confidence", Usage: "only predictions with less than this `SHARE`, between 0 and 1"},
				&ucli.StringFlag{Name: "class", Usage: "only images predicted as this `CLASS`"},
				&ucli.BoolFlag{Name: "wrong", Usage: "only images whose true class is known and another"},
				&ucli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, json (one object per line) or csv"},
			}, Action: e.queryMetadata}, 1, 1,
			"atelier metadata query results/inference_metadata.jsonl --suspicious",
			"atelier metadata query results/inference_metadata.jsonl --low-confidence 0.7 --class Gothic -o csv"),
	)
}

// queryMetadata writes rows as they are read. Lines that are no record are counted and told, not an
// error: a run that is still writing, or was killed, leaves half a line. A file without any record
// is one.
func (e *Env) queryMetadata(c *ucli.Context) error {
	q := metadata.Query{Suspicious: c.Bool("suspicious"), Below: c.Float64("low-confidence"), Class: c.String("class"), Wrong: c.Bool("wrong")}
	if c.IsSet("low-confidence") && !(q.Below > 0 && q.Below <= 1) {
		return usage("metadata query: --low-confidence %v: want a share above 0 and at most 1", q.Below)
	}
	out := bufio.NewWriter(e.Out)
	row, err := metadataRows(out, c.String("output"))
	if err != nil {
		return err
	}
	name := c.Args().First()
	in := e.In
	if name != "-" {
		f, err := os.Open(e.path(name))
		if os.IsNotExist(err) {
			return notFound("metadata query: there is no %s; inference writes inference_metadata.jsonl into its output folder", name)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	s, err := q.Each(in, func(r metadata.Record) error {
		if err := c.Context.Err(); err != nil {
			return err
		}
		return row(r)
	})
	// What was found before an error is shown all the same.
	if flushed := out.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		return fmt.Errorf("metadata query %s: %w", name, err)
	}
	if s.Bad > 0 {
		e.say("%s: %d lines are not records and were skipped; the first is %s", name, s.Bad, s.First)
	}
	if s.Lines == 0 {
		return &exitError{code: client.ExitError, text: fmt.Sprintf("metadata query: %s has no records", name)}
	}
	e.say("%d of %d images", s.Matched, s.Lines)
	// A class that was never predicted is mostly a slip of the keys.
	known := func(class string) bool { return strings.EqualFold(class, q.Class) }
	if q.Class != "" && len(s.Classes) < metadata.MaxClasses && !slices.ContainsFunc(s.Classes, known) {
		slices.Sort(s.Classes)
		text := fmt.Sprintf("no image was predicted as %s; there are %s", q.Class, strings.Join(s.Classes, ", "))
		if n, ok := nearest.Close(strings.ToLower(q.Class), s.Classes); ok {
			text += "; did you mean " + n + "?"
		}
		e.say("%s", text)
	}
	return nil
}

// metadataRows returns what writes one record in a format.
func metadataRows(out io.Writer, format string) (func(metadata.Record) error, error) {
	flags := func(r metadata.Record) string { return strings.Join(r.Flags, " ") }
	switch format {
	case "json":
		w := json.NewEncoder(out)
		w.SetEscapeHTML(false)
		return func(r metadata.Record) error { return w.Encode(r) }, nil
	case "csv":
		w := csv.NewWriter(out)
		w.Write([]string{"image_path", "true_class", "predicted_class", "confidence", "suspicious", "flags", "confidence_drop", "confidence_increase", "concentration", "coverage", "heatmap_path"})
		w.Flush()
		return func(r metadata.Record) error {
			number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
			cells := []string{r.Image, r.True, r.Predicted, number(r.Confidence), strconv.FormatBool(r.Suspicious), flags(r), "", "", "", "", r.Heatmap}
			if m := r.Quality; m != nil {
				copy(cells[6:], []string{number(m.Drop), number(m.Increase), number(m.Concentration), number(m.Coverage)})
			}
			w.Write(cells)
			w.Flush()
			return w.Error()
		}, nil
	case "table":
		// Rows go out as they come, so widths are set beforehand; what is longer moves its row, and is not cut.
		const layout = "%10s  %-24s  %-24s  %-10s  %s\n"
		headed := false
		return func(r metadata.Record) error {
			if !headed {
				headed = true
				fmt.Fprintf(out, layout, "CONFIDENCE", "PREDICTED", "TRUE", "SUSPICIOUS", "IMAGE")
			}
			suspicious := "-"
			if r.Suspicious {
				suspicious = "yes"
			}
			image := r.Image
			if f := flags(r); f != "" {
				image += "  (" + f + ")"
			}
			_, err := fmt.Fprintf(out, layout, strconv.FormatFloat(r.Confidence, 'f', 4, 64), r.Predicted, dash(r.True), suspicious, image)
			return err
		}, nil
	}
	return nil, usage("-o %s: want table, json or csv", format)
}
