package train

import (
	"context"
	"os"

	"atelier/common/trainerproto"
)

// Local trains on this machine: a trainer is started, what it reports is shown
// and written down, and the folder holds the results at the end. The Result is
// there with an error too, once the folder is: what was reached until then.
func Local(ctx context.Context, p *Plan, o Options) (*Result, error) {
	return runSession(ctx, p, o, func(s *training) error {
		log, err := os.OpenFile(s.folder.InResume(logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer log.Close()
		job := trainerproto.Job{Protocol: trainerproto.Version, Sweep: "atelier-train", Trial: 1, Run: 1, Seed: p.Seed, Params: []byte("{}"), Training: p.Training,
			Metric: "val_loss", Device: p.Device, Threads: p.Threads, Dir: s.folder.InResume(), BaseDir: p.BaseDir, CacheDir: p.CacheDir,
			Resume: p.resumeFile, ResumeEpoch: p.resumeEpoch, SheetsDir: s.folder.Path(SheetsDir)}
		last, err := Call{Trainer: o.Trainer, Verb: "train", Job: job, Log: log, Warn: s.result.warn, On: s.take, Hello: func(said string) func() {
			s.result.machine = machine(p, said)
			return s.track.machine(ctx, s.folder.Dir)
		}}.Run(ctx)
		if err == nil {
			s.history.Message = last.Message
		}
		return err
	})
}
