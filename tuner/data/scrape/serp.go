package scrape

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"atelier/common/secret"
)

// Endpoint of SerpAPI.
const Endpoint = "https://serpapi.com"

// Errors that end a scrape.
var (
	ErrKey      = KeyError("SerpAPI refuses the key: take a valid one from https://serpapi.com/manage-api-key")
	ErrNoQuota  = errors.New("no SerpAPI searches are left this month: what was downloaded stays, run the same command later to continue")
	errNoResult = errors.New("no results")
)

// KeyError says what is wrong with the key.
type KeyError string

func (e KeyError) Error() string { return string(e) }

// ReadKey takes the key from a file that only its owner can read, else from the
// environment. It is in no flag: command lines are seen by others.
func ReadKey(file string, env func(string) secret.Text) (secret.Text, error) {
	if file != "" {
		key, err := secret.FromFile(file)
		if err != nil {
			return secret.Text{}, fmt.Errorf("%w: %w", KeyError("key file"), err)
		}
		if key = trimmed(key); !key.Set() {
			return key, KeyError("key file " + file + " is empty")
		}
		return key, nil
	}
	for _, name := range []string{"SERPAPI_API_KEY", "SERPAPI_KEY"} {
		if key := trimmed(env(name)); key.Set() {
			return key, nil
		}
	}
	return secret.Text{}, KeyError("no SerpAPI key: set SERPAPI_API_KEY, or put it into a file of mode 0600 and name that with --key-file")
}

// trimmed is a key without the space round it that copying leaves.
func trimmed(key secret.Text) secret.Text { return secret.New(strings.TrimSpace(key.Reveal())) }

// Quota is what an account may still ask.
type Quota struct {
	Left int64 // searches, this month
	Hour int64 // searches an hour
	Used int64 // of those, this hour
}

// result is one image of a page of results. Every field may be missing.
type result struct {
	Original string `json:"original"`
	Title    string `json:"title"`
	Source   string `json:"source"`
	Link     string `json:"link"`
	Product  bool   `json:"is_product"`
}

// serp asks SerpAPI. The key travels in the query, so no error may show an
// address: scrub takes it out of everything.
type serp struct {
	endpoint string
	key      secret.Text
	client   *http.Client
	sleep    func(context.Context, time.Duration) error
}

func (s *serp) scrub(err error) error { return secret.RedactError(err, s.key) }

const maxPage = 16 << 20

// get asks once and decodes the answer into v; status and the error text come back too.
func (s *serp) get(ctx context.Context, path string, query url.Values, v any) (status int, said string, wait time.Duration, err error) {
	query.Set("api_key", s.key.Reveal())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint+path+"?"+query.Encode(), nil)
	if err != nil {
		return 0, "", 0, s.scrub(err)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, "", 0, s.scrub(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return resp.StatusCode, "", 0, s.scrub(err)
	}
	var problem struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(b, &problem); err != nil {
		return resp.StatusCode, "", retryAfter(resp), fmt.Errorf("SerpAPI answered %d with something that is not JSON", resp.StatusCode)
	}
	if resp.StatusCode == http.StatusOK && problem.Error == "" {
		if err := json.Unmarshal(b, v); err != nil {
			return resp.StatusCode, "", 0, s.scrub(fmt.Errorf("SerpAPI's answer: %w", err))
		}
	}
	return resp.StatusCode, s.scrub(errors.New(problem.Error)).Error(), retryAfter(resp), nil
}

func retryAfter(resp *http.Response) time.Duration {
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n >= 0 {
		return time.Duration(n) * time.Second
	}
	return 0
}

func (s *serp) quota(ctx context.Context) (Quota, error) {
	var a struct {
		Left int64 `json:"total_searches_left"`
		Hour int64 `json:"account_rate_limit_per_hour"`
		Used int64 `json:"this_hour_searches"`
	}
	status, said, _, err := s.get(ctx, "/account.json", url.Values{}, &a)
	switch {
	case err != nil:
		return Quota{}, fmt.Errorf("ask for the quota: %w", err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return Quota{}, ErrKey
	case status != http.StatusOK || said != "":
		return Quota{}, fmt.Errorf("ask for the quota: SerpAPI answered %d: %s", status, said)
	}
	return Quota{a.Left, a.Hour, a.Used}, nil
}

// attempts of a page, and of a first page without results (it may be a flake).
const attempts = 3

// page asks for a page of image results; last tells that there is none after it.
func (s *serp) page(ctx context.Context, query string, number int) (results []result, last bool, err error) {
	for try := 1; ; try++ {
		var a struct {
			Images     []result `json:"images_results"`
			Pagination struct {
				Next string `json:"next"`
			} `json:"serpapi_pagination"`
		}
		status, said, wait, err := s.get(ctx, "/search.json", url.Values{"engine": {"google_images"}, "q": {query}, "ijn": {strconv.Itoa(number)}}, &a)
		switch {
		case ctx.Err() != nil:
			return nil, false, ctx.Err()
		case err == nil && status == http.StatusOK && said == "":
			return a.Images, len(a.Images) == 0, nil // pages go on while results come, whatever pagination says
		case err == nil && (status == http.StatusUnauthorized || status == http.StatusForbidden):
			return nil, false, ErrKey
		case err == nil && status == http.StatusTooManyRequests && !strings.Contains(strings.ToLower(said), "hour"):
			return nil, false, ErrNoQuota
		case err == nil && status == http.StatusOK && strings.Contains(said, "hasn't returned any results"):
			if number > 0 || try == attempts {
				return nil, true, nil
			}
			err = errNoResult
		case err == nil:
			err = fmt.Errorf("SerpAPI answered %d: %s", status, said)
		}
		if try == attempts {
			return nil, false, fmt.Errorf("search for %q, page %d: %w", query, number+1, err)
		}
		if wait == 0 {
			wait = time.Duration(try*try) * 2 * time.Second
		}
		if status == http.StatusTooManyRequests {
			wait = max(wait, time.Minute) // the hourly limit
		}
		if err := s.sleep(ctx, min(wait, time.Hour)); err != nil {
			return nil, false, err
		}
	}
}
