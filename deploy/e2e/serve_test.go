package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"io/fs"
	"math"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"atelier/common/inference"
	"atelier/common/local"
)

// webApp is a running `atelier serve`.
type webApp struct {
	link string // that it printed: signs one browser in
	base string // http://HOST:PORT
	file string // that has the token
	home string // XDG_CONFIG_HOME
	bearer
}

// bearer gives requests the header of a token's file, as `curl -H @FILE` does.
type bearer struct{ header string }

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	name, value, _ := strings.Cut(b.header, ": ")
	r.Header.Set(name, value)
	return http.DefaultTransport.RoundTrip(r)
}

// get asks as a program with the token.
func (b bearer) get(t *testing.T, url string) *http.Response {
	t.Helper()
	resp, err := (&http.Client{Transport: b}).Get(url)
	must(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// served starts `atelier serve`; global are flags before the verb.
func served(t *testing.T, trainer, model string, global ...string) *webApp {
	t.Helper()
	return servedWith(t, trainer, model, global)
}

// servedWith is served with flags behind the verb, too.
func servedWith(t *testing.T, trainer, model string, global []string, flags ...string) *webApp {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command(filepath.Join(bin, "atelier"), slices.Concat(global, []string{"serve", "--listen", "127.0.0.1:0", "--trainer-bin", trainer, "--checkpoint", model, "--threads", "1"}, flags)...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+home)
	errs, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	found := make(chan string, 2)
	var said bytes.Buffer
	read := make(chan bool)
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(errs); lines.Scan(); {
			fmt.Fprintln(&said, lines.Text())
			if m := regexp.MustCompile(`^open (https?://\S+) |curl -H @(\S+) `).FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1] + m[2]
			}
		}
		close(found)
	}()
	file := ""
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-read
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the token's file after the end: %v", err)
		}
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 130 && cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("serve ended with %v:\n%s", err, said.String())
		}
	})
	link, ok := <-found
	if !ok {
		t.Fatalf("serve ended:\n%s", said.String())
	}
	if file, ok = <-found; !ok {
		t.Fatalf("no file with a token is named:\n%s", said.String())
	}
	base, _, _ := strings.Cut(link, "/login#")
	header, err := os.ReadFile(file)
	must(t, err)
	return &webApp{link, base, file, home, bearer{strings.TrimSpace(string(header))}}
}

func (a *webApp) ask(query, name string, upload []byte) (int, []byte, error) {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	part, err := w.CreateFormFile("image", name)
	if err != nil {
		return 0, nil, err
	}
	part.Write(upload)
	w.Close()
	resp, err := (&http.Client{Transport: a.bearer}).Post(a.base+"/api/predict"+query, w.FormDataContentType(), &body)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, b, err
}

// With a cluster's address the page lists the best of its leaderboards; without
// an answer from there it says so and still serves the files.
func TestWebAppOfACluster(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1})
	id := submit(t, ctx, cluster.Client(), "search_method: random\nseed: 1\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 1}\ntrainer: sim\n"+
		"space: {lr: {type: float, low: 0.001, high: 0.1}}\ntraining: {epochs: 2, model: vanilla}\n")
	await(t, ctx, cluster.Client(), id, "the sweep has ended", ended)
	list := func(app *webApp) (names []string, problems []string) {
		resp := app.get(t, app.base+"/api/checkpoints")
		var answer struct {
			Checkpoints []struct {
				ID, Group, Architecture string
				Accuracy                *float64
			}
			Problems []string
		}
		must(t, json.NewDecoder(resp.Body).Decode(&answer))
		for _, c := range answer.Checkpoints {
			names = append(names, c.ID)
			if !strings.Contains(c.Group, id) || c.Architecture != "vanilla" || c.Accuracy == nil || *c.Accuracy <= 0 {
				t.Errorf("listed as %+v", c)
			}
		}
		return names, answer.Problems
	}
	if names, problems := list(served(t, trainer, t.TempDir(), "--addr", strings.Join(cluster.APIAddrs(), ","))); !slices.Contains(names, id+"/1") || problems != nil {
		t.Errorf("checkpoints %q, problems %q", names, problems)
	}
	if names, problems := list(served(t, trainer, t.TempDir(), "--addr", "127.0.0.1:1", "--retry-for", "10ms")); names != nil || len(problems) != 1 {
		t.Errorf("no cluster there: checkpoints %q, problems %q", names, problems)
	}
}

// away is the mean difference of two images, 255 where their sizes differ.
func away(a, b image.Image) float64 {
	if a == nil || a.Bounds() != b.Bounds() {
		return 255
	}
	sum := 0.0
	for y := range a.Bounds().Dy() {
		for x := range a.Bounds().Dx() {
			one, _, _, _ := a.At(x, y).RGBA()
			two, _, _, _ := b.At(x, y).RGBA()
			sum += math.Abs(float64(one>>8) - float64(two>>8))
		}
	}
	return sum / float64(a.Bounds().Dx()*a.Bounds().Dy())
}

// The web app in a real browser: an image dropped, its result, the slider, the
// classes compared, the history, and a text that is called an image.
func TestWebApp(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	data, model := trained(t, ctx, dir, trainer)
	app := served(t, trainer, model)
	houses, err := filepath.Glob(filepath.Join(data, "test", "gothic", "*"))
	must(t, err)
	house, err := os.ReadFile(houses[0])
	must(t, err)

	// The JSON endpoint first: what the page shows comes from here.
	status, b, err := app.ask("?top_k=2", "house.jpg", house)
	must(t, err)
	var answer inference.Answer
	if err := json.Unmarshal(b, &answer); err != nil || status != 200 {
		t.Fatalf("%d %s", status, b)
	}
	if len(answer.Predictions) != 2 || len(answer.Maps) != 2 || len(answer.Model.Classes) != 3 || answer.Predictions[0].Confidence < answer.Predictions[1].Confidence ||
		len(answer.Maps[0].Values) != answer.Maps[0].Width*answer.Maps[0].Height || answer.Quality.Full != answer.Predictions[0].Confidence {
		t.Errorf("%+v", answer)
	}
	if _, err := jpeg.Decode(bytes.NewReader(answer.Image)); err != nil {
		t.Error(err)
	}
	// A photograph that lies on its side in the file is looked at, and shown, as people see it.
	upright, err := jpeg.Decode(bytes.NewReader(answer.Image))
	must(t, err)
	side := image.NewRGBA(image.Rect(0, 0, upright.Bounds().Dx(), upright.Bounds().Dy())) // turned to the left
	for y := range side.Bounds().Dy() {
		for x := range side.Bounds().Dx() {
			side.Set(y, side.Bounds().Dy()-1-x, upright.At(x, y))
		}
	}
	var lying bytes.Buffer
	must(t, jpeg.Encode(&lying, side, &jpeg.Options{Quality: 95}))
	exif := "\xff\xe1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00" // to be turned to the right
	status, b, err = app.ask("", "phone.jpg", append([]byte("\xff\xd8"+exif), lying.Bytes()[2:]...))
	must(t, err)
	var turned inference.Answer
	must(t, json.Unmarshal(b, &turned))
	shown, err := jpeg.Decode(bytes.NewReader(turned.Image))
	if err != nil || status != 200 || away(shown, upright) > 12 {
		t.Errorf("%d: a photograph on its side is shown %.1f of 255 away from what people see, %v", status, away(shown, upright), err)
	}
	// Many at once get the same answer as one alone.
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			status, b, err := app.ask("?top_k=2", fmt.Sprintf("%d.jpg", i), house)
			var got inference.Answer
			if err != nil || status != 200 || json.Unmarshal(b, &got) != nil || len(got.Predictions) != 2 ||
				got.Predictions[0].Class != answer.Predictions[0].Class || got.Predictions[0].Confidence-answer.Predictions[0].Confidence > 1e-5 || answer.Predictions[0].Confidence-got.Predictions[0].Confidence > 1e-5 {
				t.Errorf("request %d: %d %v %.200s", i, status, err, b)
			}
		})
	}
	wg.Wait()

	page := open(t, ctx, app)
	page.drop(dropped{"house one.jpg", "image/jpeg", house})
	page.step("see the result", chromedp.WaitVisible(chromedp.CSS("#result")))
	title, verdict := page.text("#said"), page.text("#verdict")
	if want := fmt.Sprintf("house one.jpg: %s,", answer.Predictions[0].Class); !strings.HasPrefix(title, want) || verdict == "" {
		t.Errorf("it says %q and %q, want %q", title, verdict, want)
	}
	half := page.pixels("heatmap")
	page.slide(0)
	bare := page.pixels("heatmap")
	page.slide(100)
	if full := page.pixels("heatmap"); half == bare || full == bare || full == half || bare != page.pixels("original") {
		t.Errorf("opacity 0, 50, 100: %v, %v, %v; the original %v", bare, half, full, page.pixels("original"))
	}
	if n := page.number(`document.querySelectorAll("#comparison canvas").length`); n != 3 {
		t.Errorf("%v classes are compared", n)
	}
	page.step("choose a class by keyboard", chromedp.Focus(chromedp.CSS("#predictions li:nth-child(2) button")), chromedp.KeyEvent("\r"))
	if shown, second := page.text("#shown"), page.text("#predictions li:nth-child(2) .name"); shown != second || shown == "" {
		t.Errorf("the map of %q is shown, %q was chosen", shown, second)
	}
	page.slide(45)
	page.screenshot("serve.png")
	page.drop(dropped{"house.jpg", "image/jpeg", []byte("this is a letter, not a house\n")})
	page.step("see the error", chromedp.WaitVisible(chromedp.CSS("#error")))
	if alert := page.text("#error"); !strings.Contains(alert, "house.jpg is a text file") {
		t.Errorf("it says %q", alert)
	}
	page.step("choose a file", chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{houses[1]}))
	page.until("a second picture", `document.querySelectorAll("#history li").length === 2`)
	page.step("go back in history", chromedp.Click(chromedp.CSS("#history li:nth-child(2) button")))
	if title := page.text("#said"); !strings.HasPrefix(title, "house one.jpg:") {
		t.Errorf("history brought back %q", title)
	}
	// On a phone nothing runs out of the screen.
	page.width(360)
	if wide := page.number("document.documentElement.scrollWidth"); wide > 361 {
		t.Errorf("the page is %v wide on a phone", wide)
	}
	page.screenshot("phone.png")
}
