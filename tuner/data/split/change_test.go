package split

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// drawn is a folder of two classes with its split, in one parent folder.
func drawn(t *testing.T, link bool) (parent, from, to string, o Options) {
	t.Helper()
	parent = t.TempDir()
	from, to = filepath.Join(parent, "pix"), filepath.Join(parent, "pix_split")
	for i := range 24 {
		draw(t, filepath.Join(from, []string{"a", "b"}[i%2], string(rune('c'+i))+".png"), uint64(i))
	}
	o = Options{Ratios: [3]float64{0.6, 0.2, 0.2}, Seed: 3, Workers: 2, Link: link}
	if _, err := Split(t.Context(), from, to, o); err != nil {
		t.Fatal(err)
	}
	return parent, from, to, o
}

func read(t *testing.T, from, to string) *Known {
	t.Helper()
	k, err := Read(from, to)
	if err != nil || k == nil {
		t.Fatal(k, err)
	}
	return k
}

// What was moved, swapped or replaced is followed: the split has each image once,
// in its part, under its class and with its content, and the earlier content stays.
func TestFollow(t *testing.T) {
	for _, link := range []bool{true, false} {
		_, from, to, o := drawn(t, link)
		if k := read(t, from, to); !k.Current || k.Other {
			t.Fatalf("%+v", k)
		}
		before := places(t, to)
		at := func(name string) string { return filepath.Join(from, name) }
		rename := func(a, b string) {
			t.Helper()
			if err := os.Rename(at(a), at(b)); err != nil {
				t.Fatal(err)
			}
		}
		rename("a/c.png", "b/new.png") // relabelled
		rename("a/e.png", "x")         // two change places
		rename("b/d.png", "a/e.png")
		rename("x", "b/d.png")
		old, _ := os.ReadFile(at("a/g.png"))
		os.Remove(at("a/g.png"))
		draw(t, at("a/g.png"), 999) // replaced
		k := read(t, from, to)
		if len(k.Moved) != 3 || len(k.Replaced) != 1 || k.Replaced[0] != "a/g.png" || k.Gone != 0 || k.Current || k.Other {
			t.Fatalf("%+v", k)
		}
		if err := k.Follow(to); err != nil {
			t.Fatal(err)
		}
		if _, err := Split(t.Context(), from, to, o); err != nil {
			t.Fatal(err)
		}
		after := places(t, to)
		if len(after) != len(before) || after["b/new.png"] != before["a/c.png"] || after["a/c.png"] != "" || after["a/e.png"] != before["b/d.png"] || after["b/d.png"] != before["a/e.png"] {
			t.Errorf("before %v\nafter %v", before, after)
		}
		for name, part := range after {
			if !same(at(name), target(to, part, name)) {
				t.Errorf("%s has another content in the split", name)
			}
			if before[name] != "" && before[name] != part && !strings.Contains("a/e.png b/d.png a/g.png", name) {
				t.Errorf("%s went from %s to %s", name, before[name], part)
			}
		}
		kept, _ := filepath.Glob(filepath.Join(to, Replaced, "*", "*", "*", "*"))
		if len(kept) != 1 {
			t.Fatalf("kept %v", kept)
		}
		if b, err := os.ReadFile(kept[0]); err != nil || string(b) != string(old) {
			t.Errorf("the earlier content is not in %s: %v", kept[0], err)
		}
		if k := read(t, from, to); !k.Current {
			t.Errorf("afterwards: %+v", k)
		}
	}
}

// A split belongs to its folder wherever both are moved or copied, and to no other.
func TestReadKnowsTheFolder(t *testing.T) {
	for _, link := range []bool{true, false} {
		parent, _, to, _ := drawn(t, link)
		other := filepath.Join(t.TempDir(), "pix")
		for i := range 24 {
			draw(t, filepath.Join(other, []string{"a", "b"}[i%2], string(rune('c'+i))+".png"), uint64(100+i))
		}
		if k := read(t, other, to); !k.Other || k.Source != filepath.Join(parent, "pix") {
			t.Errorf("another folder with the same names: %+v", k)
		}
		copied := filepath.Join(t.TempDir(), "copied")
		if err := os.CopyFS(copied, os.DirFS(parent)); err != nil {
			t.Fatal(err)
		}
		moved := parent + "_moved"
		if err := os.Rename(parent, moved); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(moved)
		for _, p := range []string{copied, moved} {
			if k := read(t, filepath.Join(p, "pix"), filepath.Join(p, "pix_split")); k.Other || !k.Current || len(k.Moved)+len(k.Replaced) != 0 {
				t.Errorf("%s: %+v", p, k)
			}
		}
	}
}
