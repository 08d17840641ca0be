package access_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"atelier/common/access"
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
