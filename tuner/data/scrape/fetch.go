package scrape

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/temoto/robotstxt"

	"atelier/common/dataset"
)

// agent is how downloads introduce themselves.
const agent = "atelier-data/1 (+image collection for research; honours robots.txt)"

// fetcher downloads images politely: it asks robots.txt, keeps to two at once
// a host, waits when told to, and believes nothing a server says of size or type.
type fetcher struct {
	client    *http.Client
	maxBytes  int64
	maxPixels int64
	minSide   int
	sleep     func(context.Context, time.Duration) error

	mu    sync.Mutex
	hosts map[string]*host
}

type host struct {
	slots  chan struct{}
	once   sync.Once
	robots *robotstxt.RobotsData // nil = everything is allowed
}

const (
	perHost   = 2
	redirects = 5
)

var errPrivate = errors.New("the address is private or of this machine; it is not asked")

// guard refuses addresses that are not of the public internet, after names were
// resolved: no search result may make this machine ask its own network.
func guard(private bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		ip := at.Addr().Unmap()
		if private && ip.IsLoopback() {
			return nil
		}
		if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || shared.Contains(ip) || reserved(ip) {
			return errPrivate
		}
		return nil
	}
}

var (
	shared = netip.MustParsePrefix("100.64.0.0/10") // carrier NAT
	others = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("2002::/16")}
)

func reserved(ip netip.Addr) bool {
	for _, p := range others {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

func newFetcher(o Options) *fetcher {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: guard(o.allowLoopback)}
	return &fetcher{maxBytes: o.MaxBytes, maxPixels: o.MaxPixels, minSide: o.MinSide, sleep: o.sleep, hosts: map[string]*host{},
		client: &http.Client{
			Timeout: o.Timeout,
			Transport: &http.Transport{DialContext: dialer.DialContext, Proxy: nil, MaxIdleConnsPerHost: perHost, IdleConnTimeout: 30 * time.Second,
				TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: o.Timeout, MaxResponseHeaderBytes: 1 << 16},
			CheckRedirect: func(r *http.Request, via []*http.Request) error {
				if len(via) > redirects {
					return fmt.Errorf("more than %d redirects", redirects)
				}
				if r.URL.Scheme != "http" && r.URL.Scheme != "https" {
					return fmt.Errorf("redirect to the scheme %s", r.URL.Scheme)
				}
				return nil
			}}}
}

// download is a downloaded and checked image.
type download struct {
	b             []byte
	ext           string
	width, height int
}

func (f *fetcher) host(u *url.URL) *host {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.hosts[u.Host]
	if h == nil {
		h = &host{slots: make(chan struct{}, perHost)}
		f.hosts[u.Host] = h
	}
	return h
}

// fetch downloads one address. The error is the reason it is not kept.
func (f *fetcher) fetch(ctx context.Context, address string) (*download, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("no address that can be fetched")
	}
	h := f.host(u)
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.once.Do(func() { h.robots = f.askRobots(ctx, u) })
	if h.robots != nil && !h.robots.TestAgent(u.EscapedPath(), "atelier-data") {
		return nil, errors.New("robots.txt asks not to")
	}
	for try := 1; ; try++ {
		b, wait, err := f.get(ctx, address)
		if err == nil {
			return f.check(b)
		}
		if wait == 0 || try == attempts {
			return nil, err
		}
		if err := f.sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// askRobots reads a host's robots.txt; one that is missing or broken forbids nothing.
func (f *fetcher) askRobots(ctx context.Context, u *url.URL) *robotstxt.RobotsData {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.Scheme+"://"+u.Host+"/robots.txt", nil)
	if err != nil {
		return nil
	}
	r.Header.Set("User-Agent", agent)
	resp, err := f.client.Do(r)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 512<<10))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil
	}
	data, err := robotstxt.FromBytes(b)
	if err != nil {
		return nil
	}
	return data
}

const longestWait = 30 * time.Second

// get downloads bytes; wait > 0 says that another try may do better.
func (f *fetcher) get(ctx context.Context, address string) (b []byte, wait time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, 0, err
	}
	r.Header.Set("User-Agent", agent)
	r.Header.Set("Accept", "image/jpeg,image/png,image/webp,image/gif,image/*;q=0.5")
	resp, err := f.client.Do(r)
	if err != nil {
		if errors.Is(err, errPrivate) {
			return nil, 0, errPrivate
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address stands beside it in the manifest
		}
		return nil, 0, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable:
		wait := max(retryAfter(resp), time.Second)
		if wait > longestWait {
			wait = 0
		}
		return nil, wait, fmt.Errorf("the server answered %d", resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return nil, 0, fmt.Errorf("the server answered %d", resp.StatusCode)
	case resp.ContentLength > f.maxBytes:
		return nil, 0, fmt.Errorf("%d bytes, more than %d", resp.ContentLength, f.maxBytes)
	}
	b, err = io.ReadAll(io.LimitReader(resp.Body, f.maxBytes+1))
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("the download broke off: %w", err)
	case int64(len(b)) > f.maxBytes:
		return nil, 0, fmt.Errorf("more than %d bytes", f.maxBytes)
	}
	return b, 0, nil
}

var extensions = map[string]string{"jpeg": ".jpg", "png": ".png", "webp": ".webp", "gif": ".gif", "bmp": ".bmp", "tiff": ".tif"}

// check looks at what came: the type by its first bytes, the size before it is
// decoded, then the whole.
func (f *fetcher) check(b []byte) (*download, error) {
	format := dataset.Format(b)
	ext := extensions[format]
	if ext == "" {
		kind := http.DetectContentType(b)
		return nil, fmt.Errorf("not an image but %s", strings.Split(kind, ";")[0])
	}
	if config, _, err := image.DecodeConfig(bytes.NewReader(b)); err == nil && int64(config.Width)*int64(config.Height) > f.maxPixels {
		return nil, fmt.Errorf("%d x %d pixels, more than %d", config.Width, config.Height, f.maxPixels)
	}
	img, _, err := dataset.Decode(b, int(f.maxPixels))
	if err != nil {
		return nil, err
	}
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	if min(w, h) < f.minSide {
		return nil, fmt.Errorf("%d x %d pixels, less than %d", w, h, f.minSide)
	}
	return &download{b, ext, w, h}, nil
}
