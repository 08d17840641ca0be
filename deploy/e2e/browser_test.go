package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// page is the web app in a real browser. What it is asked for has 30 s.
type page struct {
	t   *testing.T
	tab context.Context

	mu     sync.Mutex
	faults []string // that its console had: errors of scripts, what the policy refused
}

// open starts a browser and opens the link that a server printed. Errors on the page's
// console fail the test at its end.
func open(t *testing.T, ctx context.Context, app *webApp) *page {
	t.Helper()
	p := browser(t, ctx)
	p.step("open the link", chromedp.Navigate(app.link), chromedp.WaitEnabled(chromedp.CSS("#checkpoint")))
	return p
}

// browser starts one without a page.
func browser(t *testing.T, ctx context.Context) *page {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(filepath.Join(t.TempDir(), "profile")),
		chromedp.WindowSize(1200, 1100), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	alloc, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	p := &page{t: t}
	tab, closeTab := chromedp.NewContext(alloc, chromedp.WithListener(p.hear))
	t.Cleanup(closeTab)
	p.tab = tab
	must(t, chromedp.Do(tab)) // the browser's life is the tab's, not the first step's
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, fault := range p.faults {
			t.Errorf("the console: %s", fault)
		}
	})
	return p
}

// hear keeps what goes wrong on the page. An answer of 4xx is no fault of it: tests ask for some.
func (p *page) hear(event any) {
	fault := ""
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Source != log.EntrySourceNetwork && e.Entry.Level == "error" {
			fault = fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		fault = e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			fault += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			fault = fmt.Sprintf("console.%s %v", e.Type, e.Args)
		}
	}
	if fault != "" {
		p.mu.Lock()
		p.faults = append(p.faults, fault)
		p.mu.Unlock()
	}
}

// pardon drops the faults so far, which were another page's.
func (p *page) pardon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = nil
}

func (p *page) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.tab, 30*time.Second)
}

func (p *page) step(what string, actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := p.within()
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
}

// text is what people read in an element.
func (p *page) text(css string) string {
	p.t.Helper()
	ctx, cancel := p.within()
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS(css)))
	if err != nil {
		p.t.Fatalf("read %s: %v", css, err)
	}
	return s
}

// number is what a script gives.
func (p *page) number(script string) float64 {
	p.t.Helper()
	ctx, cancel := p.within()
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[float64](script))
	if err != nil {
		p.t.Fatalf("%.80s: %v", script, err)
	}
	return v
}

// is reports whether a condition, a script, is true.
func (p *page) is(condition string) bool {
	p.t.Helper()
	return p.number("("+condition+") ? 1 : 0") == 1
}

// until waits for a condition.
func (p *page) until(what, condition string) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !p.is(condition); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("never came: %s; the page says %q", what, p.text("main"))
		}
	}
}

// screenshot keeps the whole page as it is shown, for people, below the folder
// that ATELIER_SCREENS names.
func (p *page) screenshot(name string) {
	p.t.Helper()
	if to := os.Getenv("ATELIER_SCREENS"); to != "" {
		b, err := chromedp.Run(p.tab, chromedp.FullScreenshot(100))
		must(p.t, err)
		must(p.t, os.WriteFile(filepath.Join(to, name), b, 0o644))
	}
}

// dropped is a file that is let fall on the page.
type dropped struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Bytes []byte `json:"bytes"` // base64 in JSON
}

// drop lets files fall on the page at once.
func (p *page) drop(files ...dropped) {
	p.t.Helper()
	list, err := json.Marshal(files)
	must(p.t, err)
	p.number(fmt.Sprintf(`(() => {
		const transfer = new DataTransfer();
		for (const f of %s) transfer.items.add(new File([Uint8Array.from(atob(f.bytes), (c) => c.charCodeAt(0))], f.name, { type: f.kind }));
		document.getElementById("drop").dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
		return 1;
	})()`, list))
}

// pixels is a sum that differs where a canvas does.
func (p *page) pixels(id string) float64 {
	p.t.Helper()
	return p.number(fmt.Sprintf(`(() => { const c = document.getElementById(%q); const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let s = 0; for (let i = 0; i < d.length; i++) s += d[i] * ((i %% 251) + 1); return s; })()`, id))
}

// slide sets the share of the heat map, in per cent.
func (p *page) slide(value int) {
	p.t.Helper()
	p.number(fmt.Sprintf(`(() => { const o = document.getElementById("opacity"); o.value = %d; o.dispatchEvent(new Event("input")); return 1; })()`, value))
}

// choose selects a model as a person does.
func (p *page) choose(id string) {
	p.t.Helper()
	p.number(fmt.Sprintf(`(() => { const o = document.getElementById("checkpoint"); o.value = %q; o.dispatchEvent(new Event("change")); return 1; })()`, id))
}

// reload loads the page anew, as F5 does.
func (p *page) reload() {
	p.t.Helper()
	p.step("reload", chromedp.Reload(), chromedp.WaitEnabled(chromedp.CSS("#checkpoint")))
}

// scheme makes the browser one that prefers light or dark.
func (p *page) scheme(name string) {
	p.t.Helper()
	p.step("prefer "+name, chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
		return err
	}))
}

// width makes the window that wide.
func (p *page) width(pixels int64) {
	p.t.Helper()
	p.step(fmt.Sprintf("%d px wide", pixels), chromedp.EmulateViewport(pixels, 800))
}

// faint lists texts whose contrast with what is behind them is below 4.5, which
// WCAG 2 wants at level AA.
func (p *page) faint() string {
	p.t.Helper()
	ctx, cancel := p.within()
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string](`(() => {
		const rgb = (c) => (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
		const light = (c) => { const f = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
		const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return rgb("255 255 255"); };
		const found = [];
		for (const e of document.querySelectorAll("body *")) {
			if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
			const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
			const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
			if (ratio < 4.5) found.push(e.tagName + " " + (e.id || e.className) + " " + e.textContent.trim().slice(0, 20) + " " + ratio.toFixed(2));
		}
		return found.join("; ");
	})()`))
	must(p.t, err)
	return s
}
