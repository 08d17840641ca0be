package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Who gets into the web app, in real browsers: one browser by each link, nobody without; not the pages of other
// sites; and by a link from another site who was in already.
func TestWebAppSignIn(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	app := served(t, trainer, t.TempDir())
	info, err := os.Stat(app.file)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file has mode %v", info.Mode())
	}
	resp, err := http.Get(app.base + "/api/checkpoints")
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger of this machine gets %d", resp.StatusCode)
	}

	// The page lists no model, so its box stays closed: its error shows that it is there.
	const inside = `document.getElementById("error") && document.getElementById("error").textContent.includes("No model found")`
	one := browser(t, ctx)
	one.step("open the link", chromedp.Navigate(app.link))
	one.until("the page", inside)
	if !one.is(fmt.Sprintf(`location.href === %q && document.cookie === ""`, app.base+"/")) {
		t.Error("the link's code is in the address, or the session in reach of scripts")
	}

	// The same link in another browser; then a new one.
	two := browser(t, ctx)
	two.step("open the link again", chromedp.Navigate(app.link))
	two.until("the login page", `document.getElementById("how") && !document.getElementById("how").hidden`)
	if text := two.text("main"); !strings.Contains(text, "has been used") || !strings.Contains(text, "atelier serve --link") || !two.is(`location.hash === ""`) {
		t.Errorf("it says %q", text)
	}
	for _, scheme := range []string{"dark", "light"} {
		two.scheme(scheme)
		if faint := two.faint(); faint != "" {
			t.Errorf("%s: too faint: %s", scheme, faint)
		}
		for _, width := range []int64{320, 1200} {
			two.width(width)
			if wide := two.number("document.documentElement.scrollWidth"); wide > float64(width) {
				t.Errorf("%v wide in a window of %d", wide, width)
			}
			two.screenshot(fmt.Sprintf("login_%s_%d.png", scheme, width))
		}
	}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(app.base, "http://"))
	must(t, err)
	another := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "serve", "--link", "--listen", "127.0.0.1:"+port)
	another.Env = append(os.Environ(), "XDG_CONFIG_HOME="+app.home)
	link, err := another.Output()
	must(t, err)
	two.step("open another link", chromedp.Navigate(strings.TrimSpace(string(link))))
	two.until("the page", inside)

	// A page of another site: another name for the browser, and another port of the same name. It reads nothing, ends no
	// session, and frames nothing; but its link leads whoever is signed in to the page.
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<!DOCTYPE html><title>evil</title><a href="%[1]s/">link</a><iframe id="frame" src="%[1]s/"></iframe>
<iframe name="target"></iframe><form method="POST" action="%[1]s/logout" target="target"></form>
<script>
window.came = [];
(async () => {
  for (const mode of ["cors", "no-cors"]) for (const method of ["GET", "POST"]) for (const path of ["/", "/api/checkpoints", "/session", "/logout"]) {
    try {
      const r = await fetch("%[1]s" + path, { method, mode, credentials: "include" });
      if (r.type !== "opaque") came.push(mode + " " + method + " " + path + " " + r.status);
    } catch { }
  }
  const s = new EventSource("%[1]s/api/checkpoints", { withCredentials: true });
  await new Promise((done) => { s.onopen = () => { came.push("stream"); done(); }; s.onerror = done; });
  s.close();
  const w = new WebSocket("%[2]s/api/checkpoints");
  await new Promise((done) => { w.onopen = () => { came.push("socket"); done(); }; w.onerror = done; });
  document.forms[0].submit();
  await new Promise((done) => { document.getElementsByName("target")[0].onload = done; });
  window.finished = true;
})();
</script>`, app.base, strings.Replace(app.base, "http:", "ws:", 1))
	}))
	t.Cleanup(evil.Close)
	for _, site := range []string{evil.URL, strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)} {
		one.step("open "+site, chromedp.Navigate(site))
		one.until("the attacks", `window.finished`)
		if !one.is(`window.came.length === 0`) {
			t.Errorf("a page at %s got something of %d requests", site, int(one.number(`window.came.length`)))
		}
		one.pardon() // what the browser wrote about that page
		one.step("follow its link", chromedp.Click(chromedp.CSS("a")))
		one.until("the page", inside)
	}

	one.step("sign out", chromedp.Click(chromedp.CSS("#leave")))
	one.until("the login page", `location.pathname === "/login" && document.getElementById("how") && !document.getElementById("how").hidden`)
	one.step("come back", chromedp.Navigate(app.base+"/"))
	one.until("the login page", `document.getElementById("how") && !document.getElementById("how").hidden`)
	if text := one.text("main"); !strings.Contains(text, "You are not signed in") {
		t.Errorf("it says %q", text)
	}
	two.step("load the page again", chromedp.Reload())
	two.until("the page of the other browser", inside)
}
