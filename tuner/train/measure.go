package train

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"atelier/common/child"
)

// measured is what `atelier-trainer evaluate` prints.
type measured struct {
	Images   int     `json:"images"`
	Skipped  int     `json:"skipped"`
	Loss     float64 `json:"loss"`
	Accuracy float64 `json:"accuracy"`
	Classes  []struct {
		Name    string `json:"name"`
		Images  int    `json:"images"`
		Correct int    `json:"correct"`
	} `json:"classes"`
}

// test measures the best model on the test images.
func (s *training) test(ctx context.Context) error {
	s.o.Watch.Progress(Progress{Message: "testing " + BestFile})
	m, err := evaluate(ctx, s.o.Trainer, s.plan, s.folder.Path(BestFile))
	if err != nil {
		return fmt.Errorf("test on %s: %w", s.plan.Settings.Test, err)
	}
	s.history.tested(m)
	return nil
}

// tested adds the figures of the test folder.
func (h *History) tested(m *measured) {
	h.TestLoss, h.TestAcc, h.TestImages, h.TestClasses = Number(m.Loss), Number(m.Accuracy), m.Images, map[string]Number{}
	for _, c := range m.Classes {
		h.TestClasses[c.Name] = Number(float64(c.Correct) / float64(c.Images))
	}
}

// evaluate has the trainer measure a model on the test folder.
func evaluate(ctx context.Context, trainer string, p *Plan, model string) (*measured, error) {
	args := []string{"evaluate", "--checkpoint", model, "--data", p.Settings.Test, "--device", p.Device, "--threads", strconv.Itoa(p.Threads),
		"--batch-size", strconv.Itoa(p.Settings.BatchSize), "--num-workers", strconv.Itoa(p.Settings.NumWorkers), "--cache", p.CacheDir}
	out, err := ask(ctx, trainer, nil, args...)
	if err != nil {
		return nil, err
	}
	var m measured
	if err := json.Unmarshal(out, &m); err != nil {
		return nil, fmt.Errorf("answer %.80q: %w", out, err)
	}
	return &m, nil
}

// ask runs a trainer's command to its end and returns its output.
func ask(ctx context.Context, trainer string, stdin []byte, args ...string) ([]byte, error) {
	words := &tail{}
	cmd := command(trainer, words, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(stdin), &out
	p, err := child.Start(cmd, child.Options{})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", trainer, err)
	}
	stop := context.AfterFunc(ctx, p.Kill)
	err = p.Wait()
	stop()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w%s", TrainerName, args[0], err, words.quote())
	}
	return out.Bytes(), nil
}
