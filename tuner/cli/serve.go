package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/inference"
	"atelier/common/secret"
	"atelier/common/webguard"
	"atelier/tuner/models"
	"atelier/tuner/serve"
	"atelier/tuner/train"

	ucli "github.com/urfave/cli/v2"
)

// serveCommand has its limits as flags: what a stranger may cost is the choice of the person who serves.
func (e *Env) serveCommand() *ucli.Command {
	d := serve.DefaultLimits()
	return verb(&ucli.Command{Name: "serve", Usage: "a web app: drop an image, see what a model makes of it",
		Description: "Opens a page on " + defaultServe + " with predictions, heat maps, a comparison of classes and a\n" +
			"verdict on quality, for any checkpoint found: files given with --checkpoint, model files below\n" +
			"checkpoints/ and checkpoints_tuning/, and, where a cluster is addressed, the best of its\n" +
			"leaderboards. The model with the best accuracy answers first. Images are not stored.\n" +
			"The link that it prints signs in one browser, once, within 15 minutes; atelier serve --link prints\n" +
			"another. Programs send the header Authorization: Bearer TOKEN, which is in a file that only you\n" +
			"can read, here with TOKENFILE for its name, and get the same as JSON:\n" +
			"curl -H @TOKENFILE --data-binary @house.jpg 'http://" + defaultServe + "/api/predict?top_k=3'",
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "listen", Value: defaultServe, Usage: "`ADDRESS`"},
			&ucli.StringSliceFlag{Name: "checkpoint", Usage: "model `FILE`, folder of models or alias:NAME (may be given again; default: checkpoints and checkpoints_tuning)"},
			&ucli.StringFlag{Name: "shared", EnvVars: []string{"ATELIER_SHARED"}, Usage: "the workers' shared `FOLDER`, for checkpoints of leaderboards"},
			&ucli.BoolFlag{Name: "link", Usage: "print another login link for the web app that runs with the same flags, and end"},
			&ucli.StringSliceFlag{Name: "host", Usage: "answer as `NAME`, too (may be given again; default: the address, localhost, the names of the certificate)"},
			&ucli.StringFlag{Name: "token-file", Usage: "`FILE` with the token of programs, made if absent (default: a new one at each start, in a file that is printed)"},
			&ucli.StringFlag{Name: "tls-cert", Usage: "speak HTTPS with the certificate in `FILE` (PEM)"},
			&ucli.StringFlag{Name: "tls-key", Usage: "its private key, `FILE` (PEM)"},
			&ucli.BoolFlag{Name: "insecure", Usage: "listen on an address that others can reach, without TLS"},
			&ucli.StringFlag{Name: "device", Value: "auto", Usage: "`DEVICE`: auto, cpu, cuda:0"},
			&ucli.IntFlag{Name: "threads", Usage: "`N` CPU threads; 0 = all cores"},
			&ucli.Int64Flag{Name: "max-bytes", Value: d.Bytes, Usage: "largest file accepted, `BYTES`"},
			&ucli.Int64Flag{Name: "max-pixels", Value: d.Pixels, Usage: "largest image accepted, `PIXELS`"},
			&ucli.IntFlag{Name: "concurrency", Value: d.Concurrency, Usage: "at most `N` requests at once"},
			&ucli.DurationFlag{Name: "request-timeout", Value: d.Timeout, Usage: "of one request, `TIME`"},
			&ucli.StringFlag{Name: "precision", Value: "fp32", Usage: "`PRECISION`: fp32, bf16 (faster where the processor has it) or fp16 (GPU); of the model's arithmetic"},
			&ucli.IntFlag{Name: "batch", Value: 32, Usage: "answer at most `N` images in one pass of the model"},
			trainerFlag(),
		}, Action: e.serve}, 0, 0,
		"atelier serve", "atelier serve --checkpoint checkpoints/resnet18_ep30_bs32_lr0.001/best_model.pth",
		"atelier --addr 10.0.0.5:7600 serve --listen 127.0.0.1:8080")
}

const defaultServe = "127.0.0.1:8501"

// serve runs until it is interrupted, which is its good end (0). Everything that can be wrong is
// found before the page is announced: numbers, address, named models, trainer, port.
func (e *Env) serve(c *ucli.Context) error {
	e.goOn()
	limits := serve.Limits{Bytes: c.Int64("max-bytes"), Pixels: c.Int64("max-pixels"), Concurrency: c.Int("concurrency"), Timeout: c.Duration("request-timeout")}
	for name, ok := range map[string]bool{"max-bytes": limits.Bytes > 0, "max-pixels": limits.Pixels > 0, "concurrency": limits.Concurrency > 0, "request-timeout": limits.Timeout > 0, "batch": c.Int("batch") > 0} {
		if !ok {
			return usage("serve: --%s: want more than 0", name)
		}
	}
	if err := inference.Table.Check("processing.precision", c.String("precision")); err != nil {
		return usage("serve: --precision: %s", err)
	}
	if err := checkServedAt(c); err != nil {
		return err
	}
	if c.Bool("link") {
		return e.serveLink(c)
	}
	named := c.StringSlice("checkpoint")
	if len(named) == 0 {
		named = e.trainedFolders()
	}
	for _, n := range c.StringSlice("checkpoint") {
		if strings.HasPrefix(n, aliasPrefix) {
			if err := e.servedAlias(c, n); err != nil {
				return err
			}
			named = slices.DeleteFunc(slices.Clone(named), func(x string) bool { return x == n })
		} else if err := e.servable(n); err != nil {
			return err
		}
	}
	files := serve.Files{Finder: &models.Finder{Dir: e.Dir, Named: named}}
	if found, err := files.Ranked(); err == nil && len(found) > 0 {
		e.say("%s; the best: %s%s", counted(len(found), "model"), found[0].ID, inBrackets(found[0].Text()))
	} else if !c.IsSet("addr") {
		e.say("no model (.pth, .safetensors) is in %s yet: atelier train makes one; the page lists it as soon as it is there", strings.Join(named, ", "))
	}
	sources := []serve.Source{files}
	if c.IsSet("addr") {
		api, err := e.client(c)
		if err != nil {
			return err
		}
		defer api.Close()
		sources = append(sources, newBoards(api, e.files(c, api), e.Now))
	}
	trainer, err := train.FindTrainer(e.folder(c, "trainer-bin"))
	if err != nil {
		return err
	}
	// The port is taken before the trainer is started: one that is in use is told at once, not
	// after half a minute.
	l, err := net.Listen("tcp", c.String("listen"))
	if err != nil {
		return fmt.Errorf("serve: %w; choose another with --listen", err)
	}
	defer l.Close()
	at, err := e.servedAt(c, l.Addr())
	if err != nil {
		return err
	}
	if err := secret.Harden(); err != nil { // a dump would have the token and images
		return fmt.Errorf("serve: %w", err)
	}
	token, file, forget, err := e.servedToken(c, l.Addr())
	if err != nil {
		return err
	}
	defer forget()
	log := slog.New(slog.NewTextHandler(e.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e.say("starting the trainer")
	oracle, err := serve.StartOracle(c.Context, trainer, log, "--device", c.String("device"), "--threads", strconv.Itoa(c.Int("threads")), "--batch", strconv.Itoa(c.Int("batch")), "--precision", c.String("precision"))
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	defer oracle.Close()
	guard, err := serve.New(oracle, sources, limits, webguard.Config{Hosts: at.hosts, Token: token, Now: e.Now}, log)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	bounds := webguard.DefaultLimits(limits.Timeout)
	server := bounds.Server(guard)
	server.TLSConfig, server.ErrorLog = at.tls, slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	// Answers that are under way get five seconds; then the page is gone all the same.
	stopped := context.AfterFunc(c.Context, func() {
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	defer stopped()
	e.announceServed(at, token, file)
	l = bounds.Listener(l)
	if at.tls != nil {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// servedAlias refuses an alias that names nothing now. Which checkpoint it names is asked
// again with each request: an alias that moves is followed.
func (e *Env) servedAlias(c *ucli.Context, name string) error {
	if !c.IsSet("addr") {
		return usage("serve: %s is an alias of a cluster: address it with --addr", name)
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	k, err := aliased(c.Context, api, strings.TrimPrefix(name, aliasPrefix))
	if err != nil {
		return fmt.Errorf("serve: --checkpoint %s: %w", name, err)
	}
	e.say("%s is %s/%d/%d; the page follows it", name, k.Sweep, k.Trial, k.Epoch)
	return nil
}

// trainedFolders are the folders of results that are here: of trainings, and of
// tunings where there are some.
func (e *Env) trainedFolders() []string {
	folders := models.Folders[:1:1]
	for _, f := range models.Folders[1:] {
		if _, err := os.Stat(e.path(f)); err == nil {
			folders = append(folders, f)
		}
	}
	return folders
}

// inBrackets puts a text behind a line; none where it is empty.
func inBrackets(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// servable refuses what can hold no model: a path that leads nowhere, a file
// that is invalid.
func (e *Env) servable(name string) error {
	info, err := os.Stat(e.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return notFound("serve: --checkpoint: there is no %s%s", name, e.trainedHere())
	}
	if err != nil {
		return fmt.Errorf("serve: --checkpoint: %w", err)
	}
	if info.IsDir() {
		return nil
	}
	state, err := checkpoint.OpenState(e.path(name))
	if err != nil {
		return fmt.Errorf("serve: --checkpoint %s: %w", name, err)
	}
	return state.Close()
}
