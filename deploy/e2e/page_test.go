package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/image/bmp"

	"atelier/common/files"
)

// What the page does besides answering about one image: it says what it is for
// and what the model knows, it is readable in light and dark and on a phone,
// another model is asked about the image that is shown, all of several images are
// answered, and a reload loses nothing.
func TestWebPage(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir := t.TempDir()
	data, model := trained(t, ctx, dir, trainer)
	both := filepath.Join(dir, "both")
	must(t, os.MkdirAll(filepath.Join(both, "second"), 0o755))
	must(t, os.Rename(model, filepath.Join(both, "first")))
	must(t, files.Copy(filepath.Join(both, "first", "best_model.pth"), filepath.Join(both, "second", "best_model.pth"), 0o644))
	app := served(t, trainer, both)

	resp := app.get(t, app.base+"/sweeps/7")
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNotFound || !bytes.Contains(b, []byte(`href="/app.css"`)) || !bytes.Contains(b, []byte("no such page")) {
		t.Errorf("a page that is not there: %d %s", resp.StatusCode, b)
	}

	page := open(t, ctx, app)
	if text := page.text("main"); !strings.Contains(text, "shows where in the image it looked") || !strings.Contains(text, "knows 3 classes") || !strings.Contains(text, "gothic") {
		t.Errorf("the empty page says %q", text)
	}
	readable := func(state string) {
		t.Helper()
		for _, scheme := range []string{"dark", "light"} {
			page.scheme(scheme)
			if faint := page.faint(); faint != "" {
				t.Errorf("%s, %s: too faint: %s", state, scheme, faint)
			}
			for _, width := range []int64{390, 320, 1200} {
				page.width(width)
				if wide := page.number("document.documentElement.scrollWidth"); wide > float64(width) {
					t.Errorf("%s: %v wide in a window of %d", state, wide, width)
				}
				page.screenshot(strings.ReplaceAll(state, " ", "_") + "_" + scheme + "_" + fmt.Sprint(width) + ".png")
			}
		}
	}
	page.scheme("dark")
	dark := page.number(`Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0])`)
	page.scheme("light")
	if light := page.number(`Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0])`); dark > 60 || light < 200 {
		t.Errorf("the paper is %v in a dark room, %v in a light one", dark, light)
	}
	readable("empty page")

	houses, err := filepath.Glob(filepath.Join(data, "test", "gothic", "*"))
	must(t, err)
	house, err := os.ReadFile(houses[0])
	must(t, err)
	other, err := os.ReadFile(houses[1])
	must(t, err)
	var scan bytes.Buffer
	must(t, bmp.Encode(&scan, image.NewRGBA(image.Rect(0, 0, 40, 40))))

	// Several at once: all are answered and can be opened; what is no image is named.
	page.drop(dropped{"one.jpg", "image/jpeg", house}, dropped{"letter.jpg", "image/jpeg", []byte("Dear house,\n")}, dropped{"two.jpg", "image/jpeg", other}, dropped{"scan.bmp", "image/bmp", scan.Bytes()})
	page.until("all are listed", `document.querySelectorAll("#history li").length === 3 && document.getElementById("busy").hidden`)
	list := page.text("#history")
	for _, name := range []string{"one.jpg", "two.jpg", "scan.bmp"} {
		if !strings.Contains(list, name) {
			t.Errorf("%s is not in the list: %q", name, list)
		}
	}
	if alert := page.text("#error"); !strings.Contains(alert, "letter.jpg is a text file") {
		t.Errorf("it says %q of the letter", alert)
	}
	page.number(`[...document.querySelectorAll("#history button")].find((b) => b.textContent.includes("two.jpg")).click() || 1`)
	if title := page.text("#said"); !strings.HasPrefix(title, "two.jpg:") {
		t.Errorf("%q was opened", title)
	}
	readable("an answer")

	// Another model: the answer of the one before is dimmed until there is a new one.
	first := filepath.Join(both, "first", "best_model.pth")
	second := filepath.Join(both, "second", "best_model.pth")
	if about := page.text("#about"); !strings.Contains(about, first) {
		t.Errorf("the first model of the list is not the one that was measured: %q", about)
	}
	page.number(`(() => { const f = fetch; window.go = []; window.fetch = async (...a) => { await new Promise((r) => window.go.push(r)); return f(...a); }; return 1; })()`)
	page.choose(second)
	page.until("the question", `window.go.length === 1`)
	if stale := page.text("#stale"); !strings.Contains(stale, first) || !page.is(`document.getElementById("result").classList.contains("stale")`) {
		t.Errorf("while the other model is asked, the page says %q", stale)
	}
	page.number(`(() => { window.go[0](); return 1; })()`)
	page.until("the other model's answer", `document.getElementById("about").textContent.includes("second") && !document.getElementById("result").classList.contains("stale")`)
	if title := page.text("#said"); !strings.HasPrefix(title, "two.jpg:") {
		t.Errorf("the other model was asked about %q", title)
	}

	// Something to keep.
	page.number(`(() => { window.kept = []; HTMLAnchorElement.prototype.click = function () { window.kept.push(this.download); }; return 1; })()`)
	page.number(`(() => { document.getElementById("save-panel").click(); document.getElementById("save-answer").click(); return 1; })()`)
	page.until("both files", `window.kept.includes("two_panel.png") && window.kept.includes("two_answer.json")`)

	// A reload brings the session back.
	page.reload()
	page.until("the session", `document.querySelectorAll("#history li").length === 4`)
	if title := page.text("#said"); !strings.HasPrefix(title, "two.jpg:") || !page.is(`document.getElementById("checkpoint").value.includes("second")`) {
		t.Errorf("after a reload it says %q", title)
	}
	page.number(`(() => { document.getElementById("forget").click(); return 1; })()`)
	page.until("the empty page", `document.getElementById("result").hidden`)
	page.reload()
	page.until("the empty page again", `document.getElementById("result").hidden && document.getElementById("past").hidden && !document.getElementById("checkpoint").disabled`)
}
