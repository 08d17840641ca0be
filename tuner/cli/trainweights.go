package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atelier/common/nearest"
	"atelier/tuner/train"
	"atelier/tuner/weights"

	ucli "github.com/urfave/cli/v2"
)

// puller fetches published weights into the cache.
func (e *Env) puller(quiet bool) (p weights.Puller, done func(), err error) {
	folder, err := weights.DefaultFolder()
	if err != nil {
		return p, nil, err
	}
	bar := &bytesBar{bar: bar{e: e, every: redrawEvery, quiet: quiet}, what: "weights"}
	return weights.Puller{Server: e.environ("ATELIER_WEIGHTS_URL"), Folder: e.path(folder), Progress: bar.show}, bar.clear, nil
}

// startWeights makes a file of what a training is to start from: none, a file,
// or the name of published weights, which are taken from the cache or fetched.
// key is the setting that says it.
func (e *Env) startWeights(c *ucli.Context, conf configuration, key string) error {
	v := conf.Get(key)
	if v.Data == nil {
		return nil
	}
	text, command := v.Text(), c.Command.Name
	if text == "none" {
		return conf.Set(key, nil, v.Origin, v.Where)
	}
	if st, err := os.Stat(e.path(text)); err == nil && st.Mode().IsRegular() || e.distant(c) && strings.ContainsAny(text, "./") {
		return nil // a file, here or as the workers see it
	}
	file, err := weights.Find(text)
	if err != nil {
		if n, ok := nearest.Close(text, weights.Names()); ok && !strings.Contains(text, "/") {
			return usage("%s: weights (%s): %s; did you mean %q? A file is given by its path", command, v.Source(), err, n)
		}
		return notFound("%s: weights (%s): there is no file %s, and no weights are published under that name (atelier weights list)", command, v.Source(), text)
	}
	if model := conf.Get(train.KeyModel).Text(); file.Parameters > 0 && file.Arch() != model {
		return usage("%s: weights (%s): %s are weights of %s, the model is %s", command, v.Source(), text, file.Arch(), model)
	}
	if e.distant(c) {
		return usage("%s: weights (%s): the workers are on other machines: put %s where they see it and give that path", command, v.Source(), file.File)
	}
	p, done, err := e.puller(c.Bool("quiet"))
	if err != nil {
		return err
	}
	e.announce(c, p, file)
	got, err := p.Pull(c.Context, file)
	done()
	if err != nil {
		return fmt.Errorf("weights (%s): %w; put the file into %s, or train without it: --weights none", v.Source(), err, p.Folder)
	}
	if !got.Cached && !c.Bool("quiet") {
		e.say("fetched %s, %s, into %s", file.File, bytesOf(got.Bytes), p.Folder)
	}
	return conf.Set(key, got.Path, v.Origin, v.Where)
}

// announce prints which server is asked for a file that is not in the cache: without a network the answer, that there
// is none, takes some seconds.
func (e *Env) announce(c *ucli.Context, p weights.Puller, file weights.Published) {
	server, err := weights.ParseServer(cmp.Or(p.Server, weights.Server))
	if _, missing := os.Stat(filepath.Join(p.Folder, file.File)); missing == nil || err != nil || c.Bool("quiet") {
		return
	}
	e.say("asking %s for %s ...", server.Redacted(), file.File)
}

// cached reports whether a model's published weights are in the cache.
func (e *Env) cached(model string) bool {
	file, err := weights.Find(model)
	if err != nil {
		return false
	}
	p, _, err := e.puller(true)
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(p.Folder, file.File))
	return err == nil
}

// askServer bounds the question whether weights can be fetched: a person waits.
const askServer = 1500 * time.Millisecond

// published reports which weights a model can start from: cached ones, or ones
// that the server has now.
func (e *Env) published(ctx context.Context, model string) (file weights.Published, cached, there bool) {
	file, err := weights.Find(model)
	if err != nil {
		return file, false, false
	}
	if e.cached(model) {
		return file, true, true
	}
	p, _, err := e.puller(true)
	if err != nil {
		return file, false, false
	}
	server, err := weights.ParseServer(cmp.Or(p.Server, weights.Server))
	if err != nil {
		return file, false, false
	}
	ctx, cancel := context.WithTimeout(ctx, askServer)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, server.JoinPath(file.File).String(), nil)
	if err != nil {
		return file, false, false
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return file, false, false
	}
	answer.Body.Close()
	return file, false, answer.StatusCode == http.StatusOK
}
