package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"atelier/common/nearest"
	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/common/terminal"
	"atelier/tuner/track"
	"atelier/tuner/train"
)

// aboutModels tells those that are offered first.
var aboutModels = map[string]string{
	"vanilla":         "custom baseline CNN",
	"resnet18":        "ResNet-18 (recommended)",
	"resnet34":        "ResNet-34",
	"resnet50":        "ResNet-50",
	"efficientnet_b0": "EfficientNet-B0",
	"mobilenet_v2":    "MobileNet-V2 (lightweight)",
}

// questions are those of one command: its answers come from one reader.
func (e *Env) questions(verb string) *questions {
	return &questions{e: e, in: bufio.NewReader(e.In), verb: verb}
}

// model asks for the model, where neither flag nor environment gives it.
func (q *questions) model(ctx context.Context, conf configuration) error {
	v := conf.Get(train.KeyModel)
	if v.Origin >= setting.Prompt {
		return nil
	}
	name, err := q.architecture(ctx, v.Text())
	if err != nil {
		return err
	}
	return conf.Set(train.KeyModel, name, setting.Prompt, "prompt")
}

// tracking asks whether to track, where the file says so and nobody has
// answered: flag, then answer, then file.
func (q *questions) tracking(ctx context.Context, conf configuration, whether string) error {
	if v := conf.Get(track.KeyEnabled); v.Origin >= setting.Prompt || v.Data != true {
		return nil
	}
	yes, err := q.yes(ctx, whether)
	if err != nil {
		return err
	}
	return conf.Set(track.KeyEnabled, yes, setting.Prompt, "prompt")
}

// questions go to standard error, answers come from standard input.
type questions struct {
	e    *Env
	in   *bufio.Reader
	verb string // that asks, for messages
	such string // flags that would have answered
}

// architecture asks for one of the models, by number or name; nothing typed takes the one given so far.
func (q *questions) architecture(ctx context.Context, standing string) (string, error) {
	models := settings.Models()
	q.e.say("Models:")
	// Those that most people want get a line each, the others share some.
	var others []string
	for i, m := range models {
		if about := aboutModels[m]; about != "" {
			if q.e.cached(m) {
				about += ", published weights in the cache"
			}
			q.e.say("  %2d  %-16s %s", i+1, m, about)
		} else {
			others = append(others, fmt.Sprintf("%d~%s", i+1, m))
		}
	}
	for _, line := range terminal.Fold(strings.Join(others, ", "), min(q.e.Width(), 80)-7) {
		q.e.say("      %s", strings.ReplaceAll(line, "~", " ")) // a number stays with its name
	}
	for {
		answer, err := q.ask(ctx, fmt.Sprintf("Model, by number or name [%s]: ", standing))
		if err != nil {
			return "", err
		}
		if answer == "" {
			return standing, nil
		}
		if n, err := setting.Whole(answer); err == nil {
			if n >= 1 && n <= int64(len(models)) {
				return models[n-1], nil
			}
			q.e.say("There is no number %d: give 1 to %d.", n, len(models))
			continue
		}
		for _, m := range models {
			if m == strings.ToLower(answer) {
				return m, nil
			}
		}
		q.e.say("There is no model %q; did you mean %s?", answer, nearest.Word(answer, models))
	}
}

// yes asks until the answer is one.
func (q *questions) yes(ctx context.Context, question string) (bool, error) {
	for {
		answer, err := q.ask(ctx, question+" [Y/n]: ")
		if err != nil {
			return false, err
		}
		switch strings.ToLower(answer) {
		case "", "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
		q.e.say("Please answer y or n.")
	}
}

// ask shows a question and waits for a line, or for ctx: reading cannot be interrupted, so it is
// left behind on a goroutine when the person presses Ctrl-C. No line at all is a usage error, for
// whoever has no answer has to say it with flags.
func (q *questions) ask(ctx context.Context, question string) (string, error) {
	fmt.Fprint(q.e.Err, question)
	type line struct {
		text string
		err  error
	}
	// A read of the terminal cannot be broken off, the question can.
	got := make(chan line, 1)
	go func() {
		text, err := q.in.ReadString('\n')
		got <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(q.e.Err)
		return "", ctx.Err()
	case l := <-got:
		if errors.Is(l.err, io.EOF) && l.text == "" {
			fmt.Fprintln(q.e.Err)
			return "", usage("%s: no answer: give flags instead, such as %s", q.verb, cmp.Or(q.such, "--model resnet18 --no-mlflow"))
		}
		if l.err != nil && !errors.Is(l.err, io.EOF) {
			return "", l.err
		}
		return strings.TrimSpace(l.text), nil
	}
}
