//go:build libtorch

// Package serve answers for single images while others wait: what came in
// while the model was at work is the next batch. It listens on a Unix socket
// for the web app, which keeps the limits and speaks to people; DESIGN.md of
// tuner/serve tells why there are two processes.
package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"atelier/common/inference"
	"atelier/common/metadata"
	"atelier/worker/trainer/explain/cam"
	"atelier/worker/trainer/infer"
	"atelier/worker/trainer/torchx"
)

const (
	maxBatch  = 32
	maxModels = 3
	maxBody   = 64 << 20
)

// Options of a server.
type Options struct {
	Device     torchx.Device
	Precision  torchx.Precision
	Threads    int // of the thread that Run is called on
	Thresholds inference.Thresholds
	Semantics  string
	Batch      int // images answered at once, at most; 0 = 32
	Log        *slog.Logger
}

// ask is one image that waits for its answer.
type ask struct {
	ctx    context.Context
	path   string // of the checkpoint
	top    int
	pixels []byte
	shown  *image.RGBA
	size   int // of the model that pixels were made for
	began  time.Time
	reply  chan reply
}

type reply struct {
	answer *inference.Answer
	err    error
}

// server belongs to two sides: handlers decode and wait, one loop asks models.
type server struct {
	Options
	asks  chan *ask
	sizes chan sizeAsk
	held  []held   // most recently used first; the loop's alone
	known sync.Map // path -> inference.Asked, so that a busy loop is not asked again
}

// held is a loaded model and when its file was written.
type held struct {
	*infer.Predictor
	written time.Time
}

// errChanged is told to who decoded an image for a file that is another now.
var errChanged = errors.New("the checkpoint was replaced meanwhile: send the image again")

// sizeAsk wants to know a model before its image is decoded.
type sizeAsk struct {
	path  string
	reply chan sizeReply
}

type sizeReply struct {
	about inference.Asked
	err   error
}

// Run serves on l until ctx ends. It must be called on the thread that owns
// libtorch, and keeps it.
func Run(ctx context.Context, l net.Listener, o Options) error {
	if o.Batch <= 0 {
		o.Batch = maxBatch
	}
	s := &server{Options: o, asks: make(chan *ask, 256), sizes: make(chan sizeAsk)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /predict", s.predict)
	mux.HandleFunc("GET /model", s.model)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		h.Close()
	}()
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	defer func() {
		for _, h := range s.held {
			h.Close()
		}
	}()
	var waiting []*ask
	for {
		if len(waiting) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case err := <-failed:
				if ctx.Err() != nil {
					return nil
				}
				return err
			case q := <-s.sizes:
				q.reply <- s.size(q.path)
				continue
			case a := <-s.asks:
				waiting = append(waiting, a)
			}
		}
		// What has come meanwhile joins; nobody is waited for, so one image alone is answered at once.
		for more := true; more; {
			select {
			case a := <-s.asks:
				waiting = append(waiting, a)
			case q := <-s.sizes:
				q.reply <- s.size(q.path)
			default:
				more = false
			}
		}
		waiting = s.answer(waiting)
	}
}

// answer takes the oldest image and all that may share its batch, and
// returns who still waits.
func (s *server) answer(waiting []*ask) (left []*ask) {
	var batch []*ask
	for _, a := range waiting {
		switch {
		case a.ctx.Err() != nil:
			a.reply <- reply{err: a.ctx.Err()}
		case len(batch) == 0 || len(batch) < s.Batch && a.path == batch[0].path && a.size == batch[0].size:
			batch = append(batch, a)
		default:
			left = append(left, a)
		}
	}
	if len(batch) == 0 {
		return left
	}
	answers, err := s.look(batch)
	for i, a := range batch {
		if err != nil {
			a.reply <- reply{err: err}
			continue
		}
		answers[i].Milliseconds = float64(time.Since(a.began).Microseconds()) / 1000
		a.reply <- reply{answer: answers[i]}
	}
	return left
}

// hold returns a model, loading it if need be or if its file was written anew;
// the one not used for longest goes when there are too many.
func (s *server) hold(path string) (*infer.Predictor, error) {
	var written time.Time
	if info, err := os.Stat(path); err == nil {
		written = info.ModTime()
	}
	for i, h := range s.held {
		if h.Path != path {
			continue
		}
		if h.written.Equal(written) {
			copy(s.held[1:i+1], s.held[:i])
			s.held[0] = h
			return h.Predictor, nil
		}
		h.Close()
		s.held = append(s.held[:i], s.held[i+1:]...)
		break
	}
	s.known.Delete(path)
	p, err := infer.Open(path, s.Device, s.Precision, s.Threads, s.Log)
	if err != nil {
		return nil, err
	}
	s.known.Store(path, about(p))
	s.held = append([]held{{p, written}}, s.held...)
	if len(s.held) > maxModels {
		s.held[maxModels].Close()
		s.held = s.held[:maxModels]
	}
	return p, nil
}

// size loads the model, in the loop that owns it, and says what it wants.
func (s *server) size(path string) sizeReply {
	p, err := s.hold(path)
	if err != nil {
		return sizeReply{err: err}
	}
	return sizeReply{about: about(p)}
}

// about is what an answer says of the model.
func about(p *infer.Predictor) inference.Asked {
	return inference.Asked{Checkpoint: p.Path, Architecture: p.About.Arch, Classes: p.About.Classes, ImageSize: p.About.ImageSize, Epoch: p.About.Epoch,
		Map: p.Cells, MapNote: p.Cells.Note()}
}

// look asks the model about a batch.
func (s *server) look(batch []*ask) ([]*inference.Answer, error) {
	p, err := s.hold(batch[0].path)
	if err != nil {
		return nil, err
	}
	if p.About.ImageSize != batch[0].size {
		return nil, errChanged
	}
	pixels, tops := make([][]byte, len(batch)), make([]int, len(batch))
	for i, a := range batch {
		pixels[i], tops[i] = a.pixels, a.top
	}
	found, err := p.Look(pixels, tops)
	if err != nil {
		return nil, err
	}
	answers := make([]*inference.Answer, len(found))
	for i, f := range found {
		x := &inference.Answer{Model: about(p), Flags: []string{}, Reasons: []string{}, Formulas: inference.Formulas(s.Semantics), Scale: cam.Scale()}
		for k, c := range f.Top {
			name := p.About.Classes[c]
			x.Predictions = append(x.Predictions, metadata.Share{Class: name, Confidence: f.Probs[c]})
			m := f.Maps[k].Scaled()
			x.Maps = append(x.Maps, inference.AnswerMap{Class: name, Width: m.Width, Height: m.Height, Values: rounded(m)})
		}
		q := f.Quality
		x.Quality = metadata.Quality{Full: q.Full, Only: q.Only, Hidden: q.Hidden, Concentration: q.Concentration, Coverage: q.Coverage}
		if flags := s.Thresholds.Judge(&x.Quality, s.Semantics, p.Cells); len(flags) > 0 {
			x.Flags, x.Suspicious = flags, true
			for _, f := range flags {
				x.Reasons = append(x.Reasons, inference.Reason(f))
			}
		}
		answers[i] = x
	}
	return answers, nil
}

// rounded keeps a map's JSON short: what a screen shows has 256 steps.
func rounded(m cam.Map) []float32 {
	out := make([]float32, len(m.Values))
	for i, v := range m.Values {
		out[i] = float32(math.Round(float64(v)*1e4) / 1e4)
	}
	return out
}

// model describes a checkpoint's model, and loads it.
func (s *server) model(w http.ResponseWriter, r *http.Request) {
	got, err := s.askSize(r.Context(), r.URL.Query().Get("checkpoint"))
	if err != nil {
		fail(w, err)
		return
	}
	send(w, http.StatusOK, got)
}

// askSize asks the loop; what it has once said of a file is known without it.
func (s *server) askSize(ctx context.Context, path string) (inference.Asked, error) {
	if known, ok := s.known.Load(path); ok {
		return known.(inference.Asked), nil
	}
	q := sizeAsk{path, make(chan sizeReply, 1)}
	select {
	case s.sizes <- q:
		got := <-q.reply
		return got.about, got.err
	case <-ctx.Done():
		return inference.Asked{}, ctx.Err()
	}
}

// predict decodes an image on its own goroutine, then waits for the loop.
func (s *server) predict(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	path := r.URL.Query().Get("checkpoint")
	top, err := strconv.Atoi(r.URL.Query().Get("top"))
	if err != nil || top < 1 {
		top = 5
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		fail(w, err)
		return
	}
	about, err := s.askSize(r.Context(), path)
	if err != nil {
		fail(w, err)
		return
	}
	a := &ask{ctx: r.Context(), path: path, top: min(top, len(about.Classes)), size: about.ImageSize, began: began, reply: make(chan reply, 1)}
	if a.pixels, a.shown, err = infer.Prepare(body, about.ImageSize); err != nil {
		send(w, http.StatusUnprocessableEntity, map[string]string{"error": err.Error()})
		return
	}
	select {
	case s.asks <- a:
	case <-r.Context().Done():
		return
	}
	var b bytes.Buffer // while the model is at work
	encoded := jpeg.Encode(&b, a.shown, &jpeg.Options{Quality: 88})
	got := <-a.reply
	if err := errors.Join(got.err, encoded); err != nil {
		fail(w, err)
		return
	}
	got.answer.Image = b.Bytes()
	send(w, http.StatusOK, got.answer)
}

// fail tells what the asker got wrong (400) from what broke here (500).
func fail(w http.ResponseWriter, err error) {
	var f *infer.Fault
	status := http.StatusInternalServerError
	if errors.As(err, &f) || errors.Is(err, errChanged) {
		status = http.StatusBadRequest
	}
	send(w, status, map[string]string{"error": err.Error()})
}

// send answers JSON.
func send(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(fmt.Sprintf(`{"error":%q}`, err.Error()))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b)
}
