package bundle_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/common/bundle"
)

func tree(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			names = append(names, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	from, to, file := filepath.Join(dir, "from"), filepath.Join(dir, "deep/to"), filepath.Join(dir, "results.tar")
	put(t, filepath.Join(from, "report.txt"), "new")
	put(t, filepath.Join(from, "heatmaps/0001_café.png"), strings.Repeat("x", 100_000))
	put(t, filepath.Join(from, strings.Repeat("long", 60)+"/a"), "")
	put(t, filepath.Join(from, ".half-written"), "no")
	if err := os.Symlink("/etc/passwd", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(to, "report.txt"), "old")
	put(t, filepath.Join(to, "kept.txt"), "mine")
	p, err := bundle.Pack(from, file, []byte(`{"images":3}`))
	if err != nil || p.Files != 3 {
		t.Fatalf("%+v %v", p, err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); p.Size != int64(len(b)) || p.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("%+v does not describe the %d bytes", p, len(b))
	}
	note, n, err := bundle.Unpack(bytes.NewReader(b), p.Size, to)
	if err != nil || n != 3 || string(note) != `{"images":3}` {
		t.Fatalf("%q, %d files, %v", note, n, err)
	}
	if got, want := tree(t, to), []string{"heatmaps/0001_café.png", "kept.txt", strings.Repeat("long", 60) + "/a", "report.txt"}; !slices.Equal(got, want) {
		t.Errorf("unpacked %v", got)
	}
	if text, _ := os.ReadFile(filepath.Join(to, "report.txt")); string(text) != "new" {
		t.Errorf("report.txt holds %q", text)
	}
	// One that breaks off leaves the folder alone.
	put(t, filepath.Join(to, "report.txt"), "old")
	if _, _, err := bundle.Unpack(bytes.NewReader(b[:len(b)/2]), p.Size, to); err == nil {
		t.Error("half a bundle was taken")
	}
	if text, _ := os.ReadFile(filepath.Join(to, "report.txt")); string(text) != "old" || len(tree(t, to)) != 4 {
		t.Errorf("after half a bundle: %q, %v", text, tree(t, to))
	}
	if _, err := bundle.Pack(filepath.Join(dir, "none"), file, nil); err == nil {
		t.Error("a folder that is not there was packed")
	}
}

// made is a tar of single headers.
func made(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range append([]tar.Header{{Typeflag: tar.TypeReg, Name: ".note"}}, headers...) {
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

func TestRefuses(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 3} }
	huge := made(t, file("a"))
	// The size field of the second header: 8 GiB claimed by a few bytes.
	copy(huge[512+124:], "77777777777\x00")
	sum(huge[512:1024])
	for name, b := range map[string][]byte{
		"out of the folder": made(t, file("../a")),
		"by a detour":       made(t, file("a/../../b")),
		"absolute":          made(t, file("/tmp/a")),
		"dot":               made(t, file("a/./b")),
		"hidden":            made(t, file("a/.ssh")),
		"backslash":         made(t, file(`..\a`)),
		"too deep":          made(t, file(strings.Repeat("a/", 20)+"b")),
		"twice":             made(t, file("a"), file("a")),
		"file as folder":    made(t, file("a"), file("a/b")),
		"symbolic link":     made(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc"}),
		"hard link":         made(t, tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "/etc/passwd"}),
		"device":            made(t, tar.Header{Typeflag: tar.TypeChar, Name: "a"}),
		"two notes":         made(t, file(".note")),
		"claims gigabytes":  huge,
		"no note":           made(t)[512:],
		"no tar":            []byte(strings.Repeat("these are no results\n", 100)),
		"empty":             nil,
	} {
		dir := t.TempDir()
		to := filepath.Join(dir, "to")
		if _, _, err := bundle.Unpack(bytes.NewReader(b), int64(len(b)), to); err == nil {
			t.Errorf("%s: taken", name)
		}
		if got := tree(t, dir); len(got) != 0 {
			t.Errorf("%s: left %v", name, got)
		}
	}
}

// sum writes a tar header's checksum.
func sum(h []byte) {
	copy(h[148:], "        ")
	n := 0
	for _, b := range h {
		n += int(b)
	}
	for i := 5; i >= 0; i-- {
		h[148+i] = byte('0' + n&7)
		n >>= 3
	}
	h[154], h[155] = 0, ' '
}

// Whatever comes, nothing is written outside of the folder, and no more than
// the bundle has bytes.
func FuzzUnpack(f *testing.F) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 3} }
	f.Add(made(f, file("a"), file("b/c")))
	f.Add(made(f, file("../a")))
	f.Add(made(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: ".."}, file("a/b")))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		to := filepath.Join(dir, "to")
		_, n, err := bundle.Unpack(bytes.NewReader(b), int64(len(b)), to)
		names := tree(t, dir)
		if err != nil && len(names) > 0 {
			t.Errorf("refused (%v), yet left %v", err, names)
		}
		if err == nil && len(names) != n {
			t.Errorf("%d files told, %d there", n, len(names))
		}
		var bytes int64
		for _, name := range names {
			if !strings.HasPrefix(name, "to/") {
				t.Errorf("%s lies outside", name)
			}
			if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
				bytes += info.Size()
			}
		}
		if bytes > int64(len(b)) {
			t.Errorf("%d bytes out of %d", bytes, len(b))
		}
	})
}
