package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// create makes the run. A creation whose answer was lost is looked for first, by the identity in its
// tags: that it may have gone out stands in the journal, synced, before it does, so that this holds after
// a crash as well. Errors of the network leave everything as it was, and the step is taken again.
func (w *sender) create(ctx context.Context) error {
	h := w.j.head
	experiment, err := w.s.experiment(ctx, h.Experiment, w.s.call)
	if err != nil {
		return err
	}
	if w.j.made {
		found, err := w.s.search(ctx, experiment, map[string]string{tagIdentity: h.Identity}, w.s.call)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			run, err := w.s.run(ctx, found[0].ID, w.s.call)
			if err != nil {
				return err
			}
			return w.made(run)
		}
	}
	tags := map[string]string{tagIdentity: h.Identity}
	for k, v := range h.Tags {
		tags[k] = v
	}
	if h.Parent != "" {
		parent, err := w.parentID(ctx)
		if err != nil {
			return err
		}
		if tags[TagParent] = parent; parent == "" {
			delete(tags, TagParent)
			w.s.o.Notify(fmt.Sprintf("MLflow run %s: its parent run is missing; this run has no parent now", w.name))
		}
	}
	in := map[string]any{"experiment_id": experiment, "user_id": h.User, "run_name": h.Name, "start_time": h.Start}
	var list []apiPair
	for _, k := range sortedKeys(tags) {
		list = append(list, apiPair{k, tags[k]})
	}
	in["tags"] = list
	if err := w.j.mark(record{Made: true}, true); err != nil {
		w.j.giveUp()
	}
	var got struct {
		Run apiRun `json:"run"`
	}
	err = w.s.call(ctx, "runs/create", nil, in, &got)
	if refused(err) {
		if code(err) == "RESOURCE_DOES_NOT_EXIST" || code(err) == "INVALID_STATE" {
			w.s.forget(h.Experiment) // it was there a moment ago
			return err
		}
		w.dead = err
		return err
	}
	if err != nil {
		return err
	}
	return w.made(got.Run)
}

// forget drops the id of an experiment that was deleted meanwhile: the next step finds or makes it.
func (s *restStore) forget(experiment string) {
	s.mu.Lock()
	delete(s.experiments, experiment)
	s.mu.Unlock()
}

// made writes down the run's id, and where its artifacts go, before anything is sent to it.
func (w *sender) made(run apiRun) error {
	if run.Info.ID == "" {
		return &callError{call: "runs/create", status: http.StatusOK, message: "the answer has no run_id"}
	}
	if err := w.j.mark(record{Run: run.Info.ID, Where: run.Info.Artifacts}, true); err != nil {
		w.j.giveUp()
	}
	w.identify(run.Info.ID)
	return nil
}

// parentID finds the parent's id: here, or on the server by its identity, where the parent was a run of a
// program that has ended. "" without an error: there is no such run any more.
func (w *sender) parentID(ctx context.Context) (string, error) {
	if w.parent != nil {
		if id := w.parent.id(); id != "" {
			return id, nil
		}
		return "", fmt.Errorf("the parent run could not be made: %w", ErrUnreachable)
	}
	experiment, err := w.s.experiment(ctx, w.j.head.ParentExp, w.s.call)
	if err != nil {
		return "", err
	}
	found, err := w.s.search(ctx, experiment, map[string]string{tagIdentity: w.j.head.Parent}, w.s.call)
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0].ID, nil
}

// reopen goes on with a run that was there before, and makes it RUNNING. A deleted one, or one that was
// never there, cannot be delivered to at all. Where the artifacts lie is also the mark that reopening is
// done, so it is never empty.
func (w *sender) reopen(ctx context.Context) error {
	run, err := w.s.run(ctx, w.id(), w.s.call)
	if err == nil && run.Info.Stage == "deleted" {
		err = fmt.Errorf("run %s is %w", w.id(), ErrDeleted)
		w.dead = err
	}
	if err == nil {
		err = w.s.call(ctx, "runs/update", nil, map[string]any{"run_id": w.id(), "status": Running.String()}, nil)
	}
	if err != nil {
		if refused(err) {
			w.dead = err
		}
		return err
	}
	where := run.Info.Artifacts
	if where == "" {
		where = "unknown:"
	}
	if err := w.j.mark(record{Run: w.id(), Where: where}, true); err != nil {
		w.j.giveUp()
	}
	return nil
}

// end sets status and time; sent twice it is the same.
func (w *sender) end(ctx context.Context, e entry) error {
	err := w.s.call(ctx, "runs/update", nil, map[string]any{"run_id": w.id(), "status": e.End.String(), "end_time": e.TimeMS}, nil)
	if refused(err) {
		w.drop("end", err)
		return nil
	}
	return err
}

// artifact brings a file to where the run's artifacts are. Sent twice it is the same. The server says the
// place when it makes the run: its own proxy, an address of a proxy, a folder, or a bucket, for which only
// the server has keys. nil also where the file was dropped: the entries behind it must not wait for it.
func (w *sender) artifact(ctx context.Context, e entry) error {
	what := "artifact " + e.File
	u, err := url.Parse(w.j.where)
	if err != nil {
		w.drop(what, fmt.Errorf("the server keeps artifacts at %q, which is not an address", w.j.where))
		return nil
	}
	rest := path.Join(e.Folder, filepath.Base(e.File))
	target := *w.s.base
	switch {
	case u.Scheme == "mlflow-artifacts":
		if u.Host != "" {
			target.Host = u.Host
		}
		target.Path += "/api/2.0/mlflow-artifacts/artifacts/" + path.Join(strings.TrimPrefix(u.Path+u.Opaque, "/"), rest)
	case (u.Scheme == "http" || u.Scheme == "https") && strings.Contains(u.Path, "/mlflow-artifacts/artifacts/"):
		target = *u
		target.User = nil
		target.Path = path.Join(u.Path, rest)
	case u.Scheme == "file" || u.Scheme == "" && filepath.IsAbs(w.j.where):
		return w.copyArtifact(e, u.Path)
	default:
		w.drop(what, fmt.Errorf("the server keeps artifacts at %s:, where only it has keys; start it with --serve-artifacts and --default-artifact-root mlflow-artifacts:/", u.Scheme))
		return nil
	}
	return w.put(ctx, e, what, &target)
}

// copyArtifact serves a server on this machine, or one that shares a folder: the experiment's folder, two
// above, has to be here already. Else the path is one of the server's machine, and making it here would
// hide the artifacts where nobody looks.
func (w *sender) copyArtifact(e entry, dir string) error {
	if _, err := os.Stat(filepath.Dir(filepath.Dir(dir))); err != nil {
		w.drop("artifact "+e.File, fmt.Errorf("the server keeps artifacts in its folder %s, which is not on this machine; start it with --serve-artifacts and --default-artifact-root mlflow-artifacts:/", dir))
		return nil
	}
	if err := copyFile(e.File, filepath.Join(dir, filepath.FromSlash(e.Folder))); err != nil {
		w.drop("artifact "+e.File, err)
	}
	return nil
}

// put uploads a file, with time for a slow line. What every file would be answered (no proxy, none
// of that method, too large) drops the file; the rest is tried again.
func (w *sender) put(ctx context.Context, e entry, what string, target *url.URL) error {
	f, err := os.Open(e.File)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("the file is gone")
		}
		w.drop(what, err)
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		w.drop(what, err)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.s.o.Timeout+time.Duration(st.Size()>>18)*time.Second) // at 256 KiB/s
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, target.String(), f)
	if err != nil {
		w.drop(what, err)
		return nil
	}
	req.ContentLength = st.Size()
	if st.Size() == 0 {
		req.Body = http.NoBody
	}
	kind := mime.TypeByExtension(filepath.Ext(e.File))
	if kind == "" {
		kind = "application/octet-stream"
	}
	req.Header.Set("Content-Type", kind)
	err = w.s.do(req, "artifact "+path.Base(target.Path), target.Host == w.s.base.Host && target.Scheme == w.s.base.Scheme, nil)
	var ce *callError
	if errors.As(err, &ce) && (ce.refused() || ce.status == http.StatusNotFound || ce.status == http.StatusMethodNotAllowed || ce.status == http.StatusRequestEntityTooLarge ||
		strings.Contains(ce.message, "serve-artifacts")) {
		w.drop(what, err)
		return nil
	}
	return err
}
