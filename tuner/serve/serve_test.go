package serve_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"atelier/common/secret"
	"atelier/common/webguard"
	"atelier/tuner/models"
	"atelier/tuner/serve"
)

// asker answers as the test says.
type asker struct {
	f func(ctx context.Context, checkpoint string, top int, encoded []byte) (int, []byte, error)
}

func (a asker) Predict(ctx context.Context, checkpoint string, top int, encoded []byte) (int, []byte, error) {
	return a.f(ctx, checkpoint, top, encoded)
}
func (a asker) Ready() error { return nil }

func start(t *testing.T, limits serve.Limits, f func(context.Context, string, int, []byte) (int, []byte, error)) (*httptest.Server, string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"checkpoints/a/best_model.pth", "checkpoints/b/best_model.pth", "checkpoints/a/resume/epoch-0001-run-1.pth", "secret.pth"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, accuracy := range map[string]string{"a": "0.5", "b": "0.75"} {
		history := `{"epochs":[1],"train_loss":[1],"train_acc":[0.9],"val_loss":[1],"val_acc":[0.8],"lr":[0.1],"images_per_s":[9],"epoch_seconds":[1],"best_epoch":1,"best_val_acc":0.8,"test_acc":` + accuracy + `,"test_images":4}`
		if err := os.WriteFile(filepath.Join(dir, "checkpoints", name, "training_history.json"), []byte(history), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-time.Hour)
	os.Chtimes(filepath.Join(dir, "checkpoints/b/best_model.pth"), past, past) // the better one is older
	s := httptest.NewUnstartedServer(nil)
	hosts, err := webguard.NewHosts(s.Listener.Addr())
	if err != nil {
		t.Fatal(err)
	}
	guard, err := serve.New(asker{f}, []serve.Source{serve.Files{Finder: &models.Finder{Dir: dir, Named: []string{"checkpoints"}}}}, limits,
		webguard.Config{Hosts: hosts, Token: token, Now: time.Now}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Config.Handler = guard
	s.Start()
	t.Cleanup(s.Close)
	return s, dir
}

const tokenText = "test-token-of-more-than-32-characters"

var token = secret.New(tokenText)

// send is a request of a program that has the token.
func send(t *testing.T, method, url, kind string, body io.Reader) *http.Response {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Error(err)
		return httptest.NewRecorder().Result()
	}
	r.Header.Set("Authorization", "Bearer "+tokenText)
	r.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return httptest.NewRecorder().Result()
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func encoded(encode func(io.Writer, image.Image) error) []byte {
	var b bytes.Buffer
	if err := encode(&b, image.NewRGBA(image.Rect(0, 0, 8, 8))); err != nil {
		panic(err)
	}
	return b.Bytes()
}

var (
	aPNG  = encoded(png.Encode)
	aJPEG = encoded(func(w io.Writer, i image.Image) error { return jpeg.Encode(w, i, nil) })
	aGIF  = encoded(func(w io.Writer, i image.Image) error { return gif.Encode(w, i, nil) })
	aBMP  = encoded(bmp.Encode)
	aTIFF = encoded(func(w io.Writer, i image.Image) error { return tiff.Encode(w, i, nil) })
	aWebP = []byte("RIFF\x24\x00\x00\x00WEBPVP8 \x18\x00\x00\x00\x30\x01\x00\x9d\x01\x2a\x01\x00\x01\x00\x02\x00\x34\x25\xa4\x00\x03\x70\x00\xfe\xfb\xfd\x50\x00")
	// 34 bytes that claim 65535 x 65535 pixels.
	bomb = []byte("GIF89a\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02D\x01\x00;")
)

// claims is a PNG header of a size, without an image behind it.
func claims(width, height uint32) []byte {
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
	b = binary.BigEndian.AppendUint32(b, width)
	b = binary.BigEndian.AppendUint32(b, height)
	b = append(b, 8, 2, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
}

func form(field, name string, b []byte) (string, []byte) {
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	part, err := w.CreateFormFile(field, name)
	if err != nil {
		panic(err)
	}
	part.Write(b)
	w.Close()
	return w.FormDataContentType(), out.Bytes()
}

func post(t *testing.T, url, kind string, body []byte) (int, string) {
	t.Helper()
	resp := send(t, "POST", url, kind, bytes.NewReader(body))
	b, _ := io.ReadAll(resp.Body)
	var said struct{ Error string }
	if resp.StatusCode != http.StatusOK {
		if err := json.Unmarshal(b, &said); err != nil || said.Error == "" {
			t.Errorf("%d without a reason: %s", resp.StatusCode, b)
		}
		return resp.StatusCode, said.Error
	}
	return resp.StatusCode, string(b)
}

func TestWhatIsTakenAndWhatIsRefused(t *testing.T) {
	var got struct {
		checkpoint string
		top        int
		encoded    []byte
	}
	limits := serve.DefaultLimits()
	limits.Bytes, limits.Pixels = 1<<20, 1_000_000
	s, dir := start(t, limits, func(_ context.Context, c string, top int, p []byte) (int, []byte, error) {
		got.checkpoint, got.top, got.encoded = c, top, p
		return http.StatusOK, []byte(`{"ok":true}`), nil
	})
	url := s.URL + "/api/predict"
	for name, b := range map[string][]byte{"png": aPNG, "jpeg": aJPEG, "gif": aGIF, "webp": aWebP, "bmp": aBMP, "tiff": aTIFF} {
		kind, body := form("image", "x."+name, b)
		if status, said := post(t, url+"?top_k=3", kind, body); status != http.StatusOK || !bytes.Equal(got.encoded, b) || got.top != 3 {
			t.Errorf("%s in a form: %d %s, top %d", name, status, said, got.top)
		}
		if status, said := post(t, url, "application/octet-stream", b); status != http.StatusOK || !bytes.Equal(got.encoded, b) || got.top != 5 {
			t.Errorf("%s: %d %s", name, status, said)
		}
	}
	if got.checkpoint != filepath.Join(dir, "checkpoints/b/best_model.pth") {
		t.Errorf("without a name %s was asked, not the best", got.checkpoint)
	}
	if post(t, url+"?checkpoint=checkpoints/a/best_model.pth", "", aPNG); got.checkpoint != filepath.Join(dir, "checkpoints/a/best_model.pth") {
		t.Errorf("asked %s", got.checkpoint)
	}
	got.checkpoint = ""
	textKind, text := form("image", "house.jpg", []byte("not a picture, a text\n"))
	wrongKind, wrong := form("file", "x.png", aPNG)
	for name, c := range map[string]struct {
		query, kind string
		body        []byte
		status      int
		want        string
	}{
		"text named .jpg": {"", textKind, text, 415, "house.jpg is a text file"},
		"half a tiff":     {"", "", []byte("II*\x00\x08\x00\x00\x00"), 422, "begins as a TIFF"},
		"a program":       {"", "", []byte("\x7fELF\x02\x01\x01"), 415, "unknown kind"},
		"an svg":          {"", "", []byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), 415, "text file"},
		"bomb":            {"", "", bomb, 413, "65535 x 65535"},
		"large claim":     {"", "", claims(2000, 1000), 413, "2000 x 1000"},
		"half a header":   {"", "", aPNG[:12], 422, "cannot be read"},
		"too many bytes":  {"", "", append(bytes.Clone(aPNG), make([]byte, 1<<20)...), 413, "larger than 1 MB"},
		"nothing":         {"", "", nil, 400, "no image"},
		"another field":   {"", wrongKind, wrong, 400, `no field "image"`},
		"top_k":           {"?top_k=0", "", aPNG, 400, "top_k"},
		"no such model":   {"?checkpoint=nowhere.pth", "", aPNG, 404, "nowhere.pth"},
		"out of folders":  {"?checkpoint=../secret.pth", "", aPNG, 404, "no checkpoint"},
		"beside":          {"?checkpoint=secret.pth", "", aPNG, 404, "no checkpoint"},
		"in resume":       {"?checkpoint=checkpoints/a/resume/epoch-0001-run-1.pth", "", aPNG, 404, "no checkpoint"},
	} {
		if status, said := post(t, url+c.query, c.kind, c.body); status != c.status || !strings.Contains(said, c.want) {
			t.Errorf("%s: %d %q, want %d %q", name, status, said, c.status, c.want)
		}
	}
	if got.checkpoint != "" {
		t.Error("something of this was asked of the model")
	}
}

func TestTheModelsFailures(t *testing.T) {
	limits := serve.DefaultLimits()
	limits.Concurrency, limits.Timeout = 2, 2*time.Second
	inside, release := make(chan bool, 8), make(chan bool)
	s, _ := start(t, limits, func(ctx context.Context, _ string, top int, _ []byte) (int, []byte, error) {
		switch top {
		case 1:
			return 0, nil, errors.New("the trainer broke off")
		case 2:
			<-ctx.Done()
			return 0, nil, ctx.Err()
		case 3:
			return http.StatusUnprocessableEntity, []byte(`{"error":"unexpected EOF"}`), nil
		}
		inside <- true
		<-release
		return http.StatusOK, []byte("{}"), nil
	})
	url := s.URL + "/api/predict"
	kind, body := form("image", "../../x/half.png", aPNG)
	for query, c := range map[string]struct {
		status int
		want   string
	}{"?top_k=1": {502, "broke off"}, "?top_k=2": {504, "did not answer within 2s"}, "?top_k=3": {422, "half.png cannot be read: unexpected EOF"}} {
		if status, said := post(t, url+query, kind, body); status != c.status || !strings.Contains(said, c.want) || strings.Contains(said, "..") {
			t.Errorf("%s: %d %q", query, status, said)
		}
	}
	for range 2 {
		go send(t, "POST", url, "", bytes.NewReader(aPNG))
		<-inside
	}
	resp := send(t, "POST", url, "", bytes.NewReader(aPNG))
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a third at once: %d", resp.StatusCode)
	}
	close(release)
}

// What a caller with the token gets: the page, and the list of models.
func TestPageAndList(t *testing.T) {
	s, _ := start(t, serve.DefaultLimits(), func(context.Context, string, int, []byte) (int, []byte, error) {
		t.Error("the model was asked")
		return 200, nil, nil
	})
	resp := send(t, "GET", s.URL+"/", "", nil)
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || !bytes.Contains(b, []byte("app.js")) || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("the page: %d %s", resp.StatusCode, b)
	}
	list := send(t, "GET", s.URL+"/api/checkpoints", "", nil)
	var found struct{ Checkpoints []serve.Entry }
	if err := json.NewDecoder(list.Body).Decode(&found); err != nil || len(found.Checkpoints) != 2 || found.Checkpoints[0].ID != "checkpoints/b/best_model.pth" ||
		found.Checkpoints[0].Accuracy == nil || *found.Checkpoints[0].Accuracy != 0.75 || found.Checkpoints[0].Measured != "test" || found.Checkpoints[0].Group != "checkpoints/b" {
		t.Errorf("%+v %v", found, err)
	}
}

func FuzzUpload(f *testing.F) {
	for _, b := range [][]byte{aPNG, aJPEG, aGIF, aWebP, aBMP, aTIFF, bomb, claims(9, 9)} {
		f.Add(b)
	}
	limits := serve.DefaultLimits()
	limits.Pixels = 10_000
	hosts, err := webguard.NewHosts(&net.TCPAddr{IP: net.IPv4zero, Port: 80}, "example.com") // httptest's Host
	if err != nil {
		f.Fatal(err)
	}
	s, err := serve.New(asker{func(context.Context, string, int, []byte) (int, []byte, error) { return 200, []byte("{}"), nil }}, nil, limits,
		webguard.Config{Hosts: hosts, Token: token, Now: time.Now}, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/api/predict", bytes.NewReader(b))
		r.Header.Set("Authorization", "Bearer "+tokenText)
		s.ServeHTTP(w, r)
		if w.Code < 400 || w.Code == http.StatusUnauthorized || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
