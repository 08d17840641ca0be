package cli_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What would be searched is shown without a key and without a network; the quota
// only where it can be asked.
func TestScrapePlanNeedsNothing(t *testing.T) {
	t.Setenv("SERPAPI_API_KEY", "")
	t.Setenv("SERPAPI_KEY", "")
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	account := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/account.json" {
			t.Errorf("a plan asks for %s", r.URL.Path)
		}
		if r.URL.Query().Get("api_key") != "good" {
			w.WriteHeader(http.StatusUnauthorized)
			w.Write([]byte(`{"error":"Invalid API key"}`))
			return
		}
		w.Write([]byte(`{"total_searches_left":77}`))
	}))
	t.Cleanup(account.Close)
	plan := func(endpoint string) result {
		return run(t, t.TempDir(), "data", "scrape", "raw", "--class", "gothic", "--class", "tudor=tudor revival house", "--per-class", "150", "--dry-run", "--endpoint", endpoint)
	}
	for _, tc := range []struct {
		what, key, endpoint string
		code                int
		says                string
	}{
		{"no key, no network", "", nobody.URL, 0, "this takes about 4 searches; the quota is not known without a SerpAPI key (SERPAPI_API_KEY or --key-file)\n"},
		{"no network", "good", nobody.URL, 0, "the quota is not known: ask for the quota: "},
		{"all there", "good", account.URL, 0, "this takes about 4 searches; 77 left this month\n"},
		{"a wrong key", "bad", account.URL, 4, "atelier: data scrape: "},
	} {
		t.Setenv("SERPAPI_API_KEY", tc.key)
		r := plan(tc.endpoint)
		if r.code != tc.code || !strings.Contains(r.err, tc.says) || !strings.Contains(r.out, "tudor   tudor revival house         0      150        0         2") {
			t.Errorf("%s: %+v", tc.what, r)
		}
	}
}
