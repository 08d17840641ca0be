package cli

import (
	"fmt"

	"atelier/tuner/tune"
	"atelier/tuner/tune/report"

	ucli "github.com/urfave/cli/v2"
)

// reportCommand makes of any sweep the folder that `atelier tune` leaves.
func (e *Env) reportCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "report", Usage: "write a report: results, summary, charts", ArgsUsage: "SWEEP",
		Description: "Writes tuning_results.json, diagnostics_summary.txt, trials/ and charts into a folder, whose\n" +
			"path goes to standard output. A running sweep gives a report of its results so far; doing it again\n" +
			"replaces the files; those of another sweep are left. What cannot be drawn is listed in the summary.",
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "`DIR` of the report (default: report-ID)"},
			&ucli.BoolFlag{Name: "no-plots", Usage: "no charts"},
			&ucli.BoolFlag{Name: "overwrite", Usage: "replace the results of another sweep or tuning in the folder"},
		}, Action: e.sweepReport}, 1, 1,
		"atelier sweep report s-k3v9q2ma", "atelier sweep report s-k3v9q2ma -o reports/facades --no-plots")
}

// sweepReport writes the folder and prints its path. It may be done while the sweep goes on, and
// again later; a folder that holds something else's results is refused before anything is written.
func (e *Env) sweepReport(c *ucli.Context) error {
	api, err := e.patient(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	s, err := tune.Collect(c.Context, api, id)
	if err != nil {
		return err
	}
	if s.Base == e.Dir {
		s.Base = "" // its relative paths are right here
	}
	dir := c.String("out")
	if dir == "" {
		dir = "report-" + s.ID
	}
	// A folder of this sweep's own is brought up to date, another's is somebody's work.
	if other, err := report.Other(e.path(dir), s); err != nil {
		return err
	} else if other != "" && !c.Bool("overwrite") {
		return usage("sweep report: %s has %s: give another folder with --out, or replace it with --overwrite", dir, other)
	}
	w, err := report.Write(e.path(dir), s, report.Options{NoPlots: c.Bool("no-plots")})
	if err != nil {
		return err
	}
	if !c.Bool("no-plots") {
		for _, o := range w.Omitted {
			e.say("no %s: %s", o.Name, o.Reason)
		}
	}
	_, err = fmt.Fprintln(e.Out, dir)
	return err
}
