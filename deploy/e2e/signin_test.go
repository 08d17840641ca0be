package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
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

// With a certificate the web app speaks TLS 1.3 alone, its cookie is bound to it, and it answers under the
// certificate's name.
func TestWebAppOverTLS(t *testing.T) {
	trainer := torch(t)[1]
	dir := t.TempDir()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"gpu-box.example"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	cert, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	app := servedWith(t, trainer, dir, nil, "--tls-cert", cert, "--tls-key", keyFile)
	name, port, err := net.SplitHostPort(strings.TrimPrefix(app.base, "https://"))
	if err != nil || name != "gpu-box.example" {
		t.Fatalf("the link is %s, %v", app.base, err)
	}
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	trust := x509.NewCertPool()
	trust.AddCert(parsed)
	client := func(most uint16) *http.Client {
		dialer := &net.Dialer{}
		return &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: trust, MaxVersion: most},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, "127.0.0.1:"+port)
			}}}
	}
	_, code, _ := strings.Cut(app.link, "#")
	resp, err := client(0).Post(app.base+"/login", "application/json", strings.NewReader(`{"once":"`+code+`"}`))
	must(t, err)
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if c := resp.Cookies(); resp.StatusCode != http.StatusNoContent || len(c) != 1 || !c[0].Secure || c[0].Name != "__Host-atelier-"+port || resp.TLS.Version != tls.VersionTLS13 || resp.ProtoMajor != 2 {
		t.Errorf("%d %s, cookies %v, %s", resp.StatusCode, b, c, resp.Proto)
	}
	if _, err := client(tls.VersionTLS12).Get(app.base + "/login"); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: %v", err)
	}
	resp, err = http.Get("http://127.0.0.1:" + port + "/login")
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %d", resp.StatusCode)
	}
}
