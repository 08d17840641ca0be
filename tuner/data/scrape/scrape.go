// Package scrape fills an image folder from image search (SerpAPI): one search
// text a class, polite downloads, and a manifest by which an interrupted scrape
// goes on. It refuses addresses of private networks, what is no image, and to
// show its key anywhere. Licences are the user's to check: the manifest keeps
// each image's source.
package scrape

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"atelier/common/files"
	"atelier/common/secret"
)

// Manifest is the file beside the class folders; a line for every address tried.
const Manifest = "scrape.jsonl"

// Query is what is searched for a class.
type Query struct {
	Class string `json:"class"` // folder
	Text  string `json:"text"`
}

// Options of a scrape.
type Options struct {
	Out      string
	Queries  []Query
	PerClass int // images wanted
	MaxPages int // of results, a class; 0 = 10
	Key      secret.Text
	Endpoint string // "" = SerpAPI's
	Parallel int    // downloads at once; 0 = 8

	MaxBytes, MaxPixels int64         // of an image; 0 = 20 MB, 50 million
	MinSide             int           // 0 = 100
	Timeout             time.Duration // of a download; 0 = 30 s
	Log                 *slog.Logger
	Progress            func(class string, saved, wanted int)
	Now                 func() time.Time

	allowLoopback bool // for tests' own servers
	sleep         func(context.Context, time.Duration) error
}

// Line is a line of the manifest.
type Line struct {
	Class  string `json:"class"`
	URL    string `json:"url"`
	Status string `json:"status"` // saved | refused
	Reason string `json:"reason,omitempty"`
	File   string `json:"file,omitempty"` // below the folder, with slashes
	SHA256 string `json:"sha256,omitempty"`
	Width  int    `json:"width,omitempty"`
	Height int    `json:"height,omitempty"`
	Title  string `json:"title,omitempty"`
	Source string `json:"source,omitempty"`
	Page   string `json:"page,omitempty"` // that shows it
	Time   string `json:"time"`
}

// Count is what a class has and what happened.
type Count struct {
	Class    string `json:"class"`
	Text     string `json:"query"`
	Saved    int    `json:"saved"` // in all
	New      int    `json:"new"`
	Refused  int    `json:"refused"` // in this scrape
	Searches int    `json:"searches"`
}

// Report says what a scrape did, or with Plan what it would do.
type Report struct {
	Quota   *Quota  `json:"quota"` // nil where it is not known
	Classes []Count `json:"classes"`
}

func (o Options) complete() (Options, error) {
	if o.Endpoint == "" {
		o.Endpoint = Endpoint
	}
	if o.MaxPages == 0 {
		o.MaxPages = 10
	}
	if o.Parallel == 0 {
		o.Parallel = 8
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 20 << 20
	}
	if o.MaxPixels == 0 {
		o.MaxPixels = 50_000_000
	}
	if o.MinSide == 0 {
		o.MinSide = 100
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.sleep == nil {
		o.sleep = func(ctx context.Context, d time.Duration) error {
			select {
			case <-time.After(d):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if len(o.Queries) == 0 {
		return o, errors.New("scrape: name at least one class")
	}
	if o.PerClass < 1 {
		return o, fmt.Errorf("scrape: %d images per class: want at least 1", o.PerClass)
	}
	for _, q := range o.Queries {
		if q.Class == "" || q.Class != filepath.Base(q.Class) || strings.HasPrefix(q.Class, ".") || strings.ContainsAny(q.Class, `/\`) {
			return o, fmt.Errorf("scrape: class %q: want a plain folder name", q.Class)
		}
		if strings.TrimSpace(q.Text) == "" {
			return o, fmt.Errorf("scrape: class %s has no search text", q.Class)
		}
	}
	return o, nil
}

func (o Options) serp() *serp {
	return &serp{endpoint: strings.TrimSuffix(o.Endpoint, "/"), key: o.Key, client: &http.Client{Timeout: time.Minute}, sleep: o.sleep}
}

// planPatience is how long Plan waits for the quota.
const planPatience = 10 * time.Second

// Plan reads the manifest and lists what is missing, then asks for the quota where
// there is a key. It searches and downloads nothing; the plan comes with an error of
// the quota, too.
func Plan(ctx context.Context, o Options) (*Report, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	m, err := openManifest(o.Out, false)
	if err != nil {
		return nil, err
	}
	r := &Report{}
	for _, q := range o.Queries {
		c := Count{Class: q.Class, Text: q.Text, Saved: m.saved[q.Class]}
		if missing := o.PerClass - c.Saved; missing > 0 {
			c.New = missing
			c.Searches = min(o.MaxPages, (missing+99)/100) // about 100 results a page
		}
		r.Classes = append(r.Classes, c)
	}
	if !o.Key.Set() {
		return r, nil
	}
	ctx, cancel := context.WithTimeout(ctx, planPatience)
	defer cancel()
	left, err := o.serp().quota(ctx)
	if err != nil {
		return r, err
	}
	r.Quota = &left
	return r, nil
}

// Run scrapes class by class. What is there already is not asked for again. The
// Report is there with an error too.
func Run(ctx context.Context, o Options) (*Report, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	m, err := openManifest(o.Out, true)
	if err != nil {
		return nil, err
	}
	defer m.close()
	s := o.serp()
	r := &Report{}
	left, err := s.quota(ctx)
	if err != nil {
		return r, err
	}
	r.Quota = &left
	f := newFetcher(o)
	for _, q := range o.Queries {
		c := Count{Class: q.Class, Text: q.Text, Saved: m.saved[q.Class]}
		if c.Saved < o.PerClass && r.Quota.Left <= 0 {
			r.Classes = append(r.Classes, c)
			return r, ErrNoQuota
		}
		err := o.class(ctx, s, f, m, q, &c)
		r.Classes = append(r.Classes, c)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// class pages through one class's results until it has enough.
func (o Options) class(ctx context.Context, s *serp, f *fetcher, m *manifest, q Query, c *Count) error {
	for page := 0; page < o.MaxPages && c.Saved < o.PerClass; page++ {
		results, last, err := s.page(ctx, q.Text, page)
		if err != nil {
			return err
		}
		c.Searches++
		if err := o.download(ctx, f, m, q, results, c); err != nil {
			return err
		}
		if last {
			break
		}
	}
	if c.Saved < o.PerClass {
		o.Log.Warn("fewer images than wanted", "class", q.Class, "saved", c.Saved, "wanted", o.PerClass)
	}
	return ctx.Err()
}

// download fetches a page's images, several at once, and stops asking when
// there are enough.
func (o Options) download(ctx context.Context, f *fetcher, m *manifest, q Query, results []result, c *Count) error {
	var mu sync.Mutex // of c and failed
	var failed error
	var wg sync.WaitGroup
	jobs := make(chan result)
	for range o.Parallel {
		wg.Go(func() {
			for r := range jobs {
				p, err := f.fetch(ctx, r.Original)
				if ctx.Err() != nil {
					continue // neither saved nor refused: the next scrape asks again
				}
				line := Line{Class: q.Class, URL: r.Original, Title: r.Title, Source: r.Source, Page: r.Link, Time: o.Now().UTC().Format(time.RFC3339)}
				mu.Lock()
				if err == nil && c.Saved >= o.PerClass {
					mu.Unlock()
					continue // enough came meanwhile
				}
				if err == nil {
					err = m.save(o.Out, &line, p)
				}
				if err != nil {
					line.Status, line.Reason = "refused", err.Error()
					c.Refused++
				} else {
					c.Saved++
					c.New++
					o.Progress(q.Class, c.Saved, o.PerClass)
				}
				if err := m.add(line); err != nil && failed == nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	for _, r := range results {
		if r.Original == "" || m.known(q.Class, r.Original) {
			continue
		}
		mu.Lock()
		enough := c.Saved >= o.PerClass || failed != nil
		mu.Unlock()
		if enough || ctx.Err() != nil {
			break
		}
		jobs <- r
	}
	close(jobs)
	wg.Wait()
	return failed
}

// manifest remembers every address tried.
type manifest struct {
	mu    sync.Mutex
	f     *os.File
	seen  map[string]bool   // class and address
	sums  map[string]string // class and SHA-256 -> file
	saved map[string]int
}

func openManifest(dir string, write bool) (*manifest, error) {
	m := &manifest{seen: map[string]bool{}, sums: map[string]string{}, saved: map[string]int{}}
	path := filepath.Join(dir, Manifest)
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	m.read(dir, b)
	if !write {
		return m, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if m.f, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	if n := len(b); n > 0 && b[n-1] != '\n' { // a scrape that was killed while it wrote
		_, err = m.f.WriteString("\n")
	}
	return m, err
}

// read takes the lines that are lines. A saved image that is not there any
// more was taken away by somebody: it is not fetched again.
func (m *manifest) read(dir string, b []byte) {
	s := bufio.NewScanner(strings.NewReader(string(b)))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var l Line
		if json.Unmarshal(s.Bytes(), &l) != nil || l.URL == "" {
			continue
		}
		m.seen[l.Class+"\x00"+l.URL] = true
		if l.Status == "saved" && filepath.IsLocal(filepath.FromSlash(l.File)) {
			m.sums[l.Class+"\x00"+l.SHA256] = l.File
			if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(l.File))); err == nil {
				m.saved[l.Class]++
			}
		}
	}
}

func (m *manifest) known(class, address string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := class + "\x00" + address
	was := m.seen[key]
	m.seen[key] = true
	return was
}

// save writes an image under the name of its bytes and completes its line.
func (m *manifest) save(dir string, l *Line, p *download) error {
	sum := sha256.Sum256(p.b)
	l.SHA256, l.Width, l.Height = hex.EncodeToString(sum[:]), p.width, p.height
	m.mu.Lock()
	other := m.sums[l.Class+"\x00"+l.SHA256]
	m.mu.Unlock()
	if other != "" {
		return fmt.Errorf("the same bytes as %s", other)
	}
	l.File = l.Class + "/" + l.SHA256[:16] + p.ext
	path := filepath.Join(dir, filepath.FromSlash(l.File))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := files.WriteUnsynced(path, p.b, 0o644); err != nil {
		return err
	}
	l.Status = "saved"
	m.mu.Lock()
	m.sums[l.Class+"\x00"+l.SHA256] = l.File
	m.mu.Unlock()
	return nil
}

func (m *manifest) add(l Line) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", m.f.Name(), err)
	}
	return nil
}

func (m *manifest) close() error { return m.f.Close() }
