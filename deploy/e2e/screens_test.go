package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"golang.org/x/image/draw"

	"atelier/common/inference"
)

// screenshots are the pictures of README, drawn anew by `make screenshots`, which sets ATELIER_PICTURES.
const screenshots = "../docs/pictures"

// The pictures of README are there, open and are small. With ATELIER_PICTURES they
// are made first, in that folder: a model is trained on drawn facades and asked in
// a browser, and a small sweep of trainings gives its report.
func TestScreenshots(t *testing.T) {
	if to := os.Getenv("ATELIER_PICTURES"); to != "" {
		makeScreenshots(t, to)
	}
	for _, name := range []string{"serve.png", "sweep.png", "curve.png"} {
		f, err := os.Open(filepath.Join(screenshots, name))
		must(t, err)
		defer f.Close()
		info, err := f.Stat()
		must(t, err)
		if _, err := png.Decode(bufio.NewReader(f)); err != nil || info.Size() > 200_000 {
			t.Errorf("%s: %d bytes, %v; want at most 200,000", name, info.Size(), err)
		}
	}
}

func makeScreenshots(t *testing.T, to string) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	dir := t.TempDir()
	command := func(args ...string) {
		t.Helper()
		if _, stderr, code := atelier(t, ctx, nil, args...); code != 0 {
			t.Fatalf("%v: exit %d:\n%s", args, code, stderr)
		}
	}
	data, model, tuning := filepath.Join(dir, "facades"), filepath.Join(dir, "model"), filepath.Join(dir, "tuning")
	command("data", "synth", data, "--train", "80", "--validation", "20", "--test", "10", "--size", "96",
		"--style", "art_deco", "--style", "colonial", "--style", "gothic", "--style", "tudor")
	command("train", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--epochs", "10", "--batch-size", "32", "--lr", "0.001", "--no-mlflow",
		"--set", "image_size=96", "--out", model)
	command("tune", "--trainer-bin", trainer, "--model", "vanilla", "--data", data, "--no-mlflow", "--out", tuning, "--trials", "20",
		"--set", "epochs=3", "--set", "image_size=32", "--set", "local.redis=off")

	app := served(t, trainer, model)
	p := open(t, ctx, app)
	p.width(1000)
	p.drop(dropped{"gothic house.jpg", "image/jpeg", surest(t, app, filepath.Join(data, "test", "gothic"))})
	p.step("see the result", chromedp.WaitVisible(chromedp.CSS("#result")))
	p.slide(55)
	end := int(p.number(`document.getElementById("about").getBoundingClientRect().top + scrollY`)) // below it is a path of this machine
	must(t, os.MkdirAll(to, 0o755))
	shot, err := chromedp.Run(p.tab, chromedp.FullScreenshot(100))
	must(t, err)
	keep(t, filepath.Join(to, "serve.png"), shot, end, 600)
	for name, from := range map[string]string{"sweep.png": filepath.Join(tuning, "parallel_coordinates.png"), "curve.png": filepath.Join(model, "train_history.png")} {
		chart, err := os.ReadFile(from)
		must(t, err)
		keep(t, filepath.Join(to, name), chart, 0, 900)
	}
}

// keep writes a PNG file of a width, of the rows of a picture above end; 0 = all.
func keep(t *testing.T, file string, shown []byte, end, width int) {
	t.Helper()
	whole, err := png.Decode(bytes.NewReader(shown))
	must(t, err)
	part := whole.Bounds()
	if end > 0 {
		part.Max.Y = part.Min.Y + end
	}
	small := image.NewRGBA(image.Rect(0, 0, width, part.Dy()*width/part.Dx()))
	draw.CatmullRom.Scale(small, small.Bounds(), whole, part, draw.Src, nil)
	var b bytes.Buffer
	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, small))
	must(t, os.WriteFile(file, b.Bytes(), 0o644))
}

// surest is the image of a folder that the model is surest to be of the folder's class.
func surest(t *testing.T, app *webApp, folder string) (image []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*"))
	must(t, err)
	best := -1.0
	for _, name := range names {
		b, err := os.ReadFile(name)
		must(t, err)
		status, text, err := app.ask("?top_k=1", filepath.Base(name), b)
		var answer inference.Answer
		if err != nil || status != 200 || json.Unmarshal(text, &answer) != nil || len(answer.Predictions) == 0 {
			t.Fatalf("%d %v %.200s", status, err, text)
		}
		if p := answer.Predictions[0]; p.Class == filepath.Base(folder) && p.Confidence > best {
			image, best = b, p.Confidence
		}
	}
	if image == nil {
		t.Fatalf("no image of %s is recognised", folder)
	}
	return image
}
