package access_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/access"
	"atelier/common/secret"
)

// Every role has what it may, and no more, whatever a route asks.
func TestNeeds(t *testing.T) {
	roles := []access.Role{access.Nobody, access.Viewer, access.Operator, access.Admin, access.Worker, access.Coordinator, access.Trial, 99, -1}
	for name, c := range map[string]struct {
		need   access.Need
		allow  string // as many letters as roles
		lowest string
	}{
		"anybody":           {access.Anybody, "yyyyyyyyy", "none"},
		"viewers":           {access.Viewers, "nyyynnnnn", "viewer"},
		"operators":         {access.Operators, "nnyynnnnn", "operator"},
		"admins":            {access.Admins, "nnnynnnnn", "admin"},
		"workers":           {access.Workers, "nnnnynnnn", "worker"},
		"coordinators":      {access.Coordinators, "nnnnnynnn", "coordinator"},
		"operators, trials": {access.Operators | access.Trials, "nnyynnynn", "operator or trial"},
		"viewers, machines": {access.Viewers | access.Workers | access.Coordinators, "nyyyyynnn", "viewer or worker or coordinator"},
		"nobody":            {0, "nnnnnnnnn", ""},
	} {
		for i, r := range roles {
			if want := c.allow[i] == 'y'; c.need.Allows(r) != want {
				t.Errorf("%s: allows %s: %v", name, r, !want)
			}
		}
		if got := c.need.Lowest(); got != c.lowest {
			t.Errorf("%s: lowest is %q, want %q", name, got, c.lowest)
		}
	}
}

// A credential survives its text, and prints without its secret.
func TestCredentialText(t *testing.T) {
	for _, c := range []access.Credential{access.NewToken(), access.NewInvite(), access.NewTrialSecret().ForTrial("s-abc-1", 12)} {
		text := c.Text()
		again, err := access.Parse(text)
		if err != nil || again != c || again.Hash() != c.Hash() {
			t.Fatalf("%s: %v", c, err)
		}
		secret := text[strings.LastIndex(text, c.ID+"_")+len(c.ID)+1:]
		raw, _ := base64.RawURLEncoding.DecodeString(secret)
		if len(raw) != 32 || c.Hash() != sha256.Sum256(raw) {
			t.Errorf("%s: a secret of %d bytes, or another hash", c, len(raw))
		}
		encoded, _ := json.Marshal(map[string]any{"c": c})
		for _, shown := range []string{c.String(), fmt.Sprintf("%v %+v %#v %s %q", c, &c, c, c, c), string(encoded)} {
			if strings.Contains(shown, secret[:8]) || strings.Contains(shown, fmt.Sprint(raw[:4])[1:8]) || !strings.Contains(shown, c.ID) {
				t.Errorf("shown as %s", shown)
			}
		}
	}
	a, b := access.NewToken(), access.NewToken()
	if a.ID == b.ID || a.Hash() == b.Hash() || !access.ValidTokenID(a.ID) || access.ValidInviteID(a.ID) || !access.ValidInviteID(access.NewInvite().ID) {
		t.Errorf("ids %s and %s", a.ID, b.ID)
	}
}

func TestParseRefuses(t *testing.T) {
	good := access.NewToken().Text()
	for _, text := range []string{"", "atl_", "atl_t-0123456789", good + "A", good[:len(good)-1], "x" + good, strings.ToUpper(good), good + " ", "atl__" + good[17:], "atl_a/b" + good[16:], strings.Repeat("a", 300)} {
		if _, err := access.Parse(text); err == nil {
			t.Errorf("%q was taken", text)
		} else if len(text) > 20 && strings.Contains(err.Error(), text[len(text)-10:]) {
			t.Errorf("the error repeats the text: %v", err)
		}
	}
}

func TestTrialOf(t *testing.T) {
	for id, want := range map[string]string{"s-1.7": "s-1 7 true", "s-1": " 0 false", "s-1.0": "s-1 0 false", "s-1.07": "s-1 7 false", ".7": " 7 false", "s-1.7.8": "s-1 0 false", "t-0123456789": " 0 false"} {
		sweep, n, ok := access.TrialOf(id)
		if got := fmt.Sprint(sweep, " ", n, " ", ok); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}

// FuzzParse: whatever is taken has one text, and is that of its credential.
func FuzzParse(f *testing.F) {
	f.Add(access.NewToken().Text())
	f.Add(access.NewTrialSecret().ForTrial("s-1", 3).Text())
	f.Add("atl_t-_")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := access.Parse(text)
		if err == nil && c.Text() != text {
			t.Fatalf("%q is also %q", text, c.Text())
		}
		access.TrialOf(text)
	})
}

// A login that was left is read by its port, or where it is the only one; a file that others can
// read is refused, as is what is no login.
func TestLocalLogins(t *testing.T) {
	dir := t.TempDir()
	token := access.NewToken()
	want := access.Login{Addr: "127.0.0.1:7600", CA: "pem", Token: secret.New(token.Text())}
	if _, ok, err := access.ReadLogin(dir, "7600"); ok || err != nil {
		t.Errorf("of an empty folder: %v, %v", ok, err)
	}
	if err := access.WriteLogin(dir, "7600", want); err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{"7600", "7601"} {
		got, ok, err := access.ReadLogin(dir, port)
		if !ok || err != nil || got.Addr != want.Addr || got.CA != want.CA || got.Token.Reveal() != token.Text() {
			t.Errorf("port %s: %+v, %v, %v", port, got, ok, err)
		}
	}
	if err := access.WriteLogin(dir, "7700", want); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := access.ReadLogin(dir, "7601"); ok {
		t.Error("of two others one was taken")
	}
	file := filepath.Join(access.LocalLogins(dir), "7700.json")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := access.ReadLogin(dir, "7700"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can read: %v", err)
	}
	os.WriteFile(file, []byte(`{"ca":"pem","token":"`+token.Text()[:30]+`"}`), 0o600)
	os.Chmod(file, 0o600)
	if _, _, err := access.ReadLogin(dir, "7700"); err == nil || strings.Contains(err.Error(), token.Text()[20:30]) {
		t.Errorf("a token cut short: %v", err)
	}
	for range 2 {
		if err := access.RemoveLogin(dir, "7700"); err != nil {
			t.Error(err)
		}
	}
	if got := access.Settings(func(name string) string { return map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "relative"}[name] }); got != "/h/.config/atelier" {
		t.Errorf("settings in %s", got)
	}
}

func FuzzLogin(f *testing.F) {
	f.Add([]byte(`{"addr":"a","ca":"b","token":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		os.MkdirAll(access.LocalLogins(dir), 0o700)
		os.WriteFile(filepath.Join(access.LocalLogins(dir), "1.json"), b, 0o600)
		if l, ok, err := access.ReadLogin(dir, "1"); ok != (err == nil) || ok && l.CA == "" {
			t.Fatalf("%+v, %v, %v", l, ok, err)
		}
	})
}
