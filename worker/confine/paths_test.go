package confine_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/worker/confine"
)

// What a sweep names is opened where it may be, and refused by name where not.
func TestOpen(t *testing.T) {
	p := newPlace(t)
	far := filepath.Join(p.top, "far")
	must(t, os.MkdirAll(far+"/tudor", 0o755))
	must(t, os.MkdirAll(p.set+"/modern", 0o755))
	for _, file := range []string{far + "/tudor/1.jpg", far + "/2.jpg"} {
		must(t, os.WriteFile(file, []byte("x"), 0o644))
	}
	for from, to := range map[string]string{
		p.top + "/by-link":      p.set,
		p.top + "/to-data":      p.data,
		p.set + "/tudor":        far + "/tudor",          // a class
		p.set + "/modern/2.jpg": far + "/2.jpg",          // an image
		p.set + "/modern/3.jpg": p.data + "/secret",      // not to be followed
		p.set + "/modern/4.jpg": p.set + "/gothic/1.jpg", // within
		p.set + "/modern/5.jpg": p.top + "/nowhere",
	} {
		must(t, os.Symlink(to, from))
	}
	linked := []string{far, far + "/tudor", p.set}
	for name, tc := range map[string]struct {
		roots  []string
		path   string
		sure   bool
		read   []string
		refuse string
	}{
		"a folder, and where its links lead": {nil, p.set, true, linked, ""},
		"by a link":                          {nil, p.top + "/by-link", true, linked, ""},
		"a file":                             {nil, p.top + "/other", true, []string{p.top + "/other"}, ""},
		"not there":                          {nil, far + "/none", true, []string{far + "/none"}, ""},
		"not there, where nothing is opened": {nil, p.top + "/none", true, nil, ""},
		"not there, as a text":               {nil, far + "/none", false, nil, ""},
		"what all trainers read":             {nil, p.runs + "/old.pth", true, nil, ""},
		"the worker's own":                   {nil, p.data + "/secret", true, nil, "own data folder"},
		"the worker's own, by a link":        {nil, p.top + "/to-data/secret", true, nil, "own data folder"},
		"by the way up":                      {nil, p.set + "/../w1/secret", true, nil, "own data folder"},
		"a folder above the worker's":        {nil, p.top, true, nil, "contains the worker's own"},
		"the whole disk":                     {nil, "/", true, nil, "contains the worker's own"},
		"a text that is no path":             {nil, p.data + "/secret", false, nil, ""},
		"in a root, links out of it not":     {[]string{p.set}, p.set, true, []string{p.set}, ""},
		"the root's links, in another root":  {[]string{p.set, far}, p.set, true, linked, ""},
		"out of the roots":                   {[]string{p.set}, p.top + "/other", true, nil, "--data-root " + p.set},
		"out of the roots, by the way up":    {[]string{p.set}, p.set + "/../other", true, nil, "outside"},
		"a root's neighbour of like name":    {[]string{p.top + "/by-link"}, p.top + "/other", true, nil, "outside"},
		"a text, out of the roots":           {[]string{p.set}, p.top + "/other", false, nil, ""},
		"checkpoints need no root":           {[]string{p.set}, p.fetched + "/copy.pth", true, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := p.cfg
			cfg.Roots = tc.roots
			c, err := confine.New(cfg)
			must(t, err)
			read, err := c.Open([]confine.Named{{Key: "data.train", Path: tc.path, Sure: tc.sure}})
			var outside *confine.Outside
			switch {
			case tc.refuse == "" && (err != nil || !slices.Equal(read, tc.read)):
				t.Errorf("%v, %v; want %v", read, err, tc.read)
			case tc.refuse != "" && (!errors.As(err, &outside) || outside.Key != "data.train" || !strings.Contains(err.Error(), tc.refuse)):
				t.Errorf("%v, %v; want %q", read, err, tc.refuse)
			}
		})
	}
	c := p.confinement()
	needsLandlock(t, c)
	if !c.Covers([]string{p.set}, []string{p.set + "/gothic"}) || c.Covers([]string{p.set + "/gothic"}, []string{p.set}) || !c.Covers(nil, nil) {
		t.Error("a folder covers what is below it, and nothing else")
	}
}

// Where a path is not there its folder's names can be listed, and nothing read.
func TestMissing(t *testing.T) {
	p := newPlace(t)
	c := p.confinement()
	needsLandlock(t, c)
	list, read, up := "list:"+p.set, "read:"+p.set+"/gothic/1.jpg", "list:"+p.top
	came := p.tries(c, confine.Program{}, []string{p.set + "/none"}, nil, list, read, up)
	if came[list] != "" || !strings.Contains(came[read], "permission denied") || !strings.Contains(came[up], "permission denied") {
		t.Errorf("%v", came)
	}
}

// A trainer in a script, a virtual environment, or with libraries of its own finds
// what it needs; not what lies beside that.
func TestPrograms(t *testing.T) {
	p := newPlace(t)
	c := p.confinement()
	needsLandlock(t, c)
	self, err := os.ReadFile(os.Args[0])
	must(t, err)
	venv, base, code := p.top+"/venv", p.top+"/base", p.top+"/code"
	for _, dir := range []string{venv + "/bin", venv + "/lib/python3.11", base + "/bin", base + "/lib/python3.11", code} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	must(t, os.WriteFile(base+"/bin/python3", self, 0o755))
	must(t, os.Symlink(base+"/bin/python3", venv+"/bin/python"))
	must(t, os.WriteFile(venv+"/pyvenv.cfg", []byte("home = "+base+"/bin\nversion = 3.11\n"), 0o644))
	must(t, os.WriteFile(p.top+"/start", []byte("#!"+venv+"/bin/python try\n"), 0o755))
	for _, file := range []string{venv + "/lib/python3.11/a.py", base + "/lib/python3.11/b.py", code + "/train.py", code + "/net.py"} {
		must(t, os.WriteFile(file, []byte("x"), 0o644))
	}
	pyenv := p.top + "/pyenv"
	for _, dir := range []string{pyenv + "/shims", pyenv + "/versions"} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	must(t, os.WriteFile(pyenv+"/versions/it", self, 0o755))
	must(t, os.WriteFile(pyenv+"/shims/python3", []byte("#!/bin/sh\nexec "+pyenv+"/versions/it try \"$@\"\n"), 0o755))
	things := []string{"read:" + venv + "/lib/python3.11/a.py", "read:" + base + "/lib/python3.11/b.py", "read:" + code + "/net.py", "read:" + p.top + "/other"}
	for name, tc := range map[string]struct {
		command []string
		open    int // of things, from the first; the rest is refused
	}{
		"an interpreter and a script": {[]string{venv + "/bin/python", "try", code + "/train.py"}, 3},
		"a script that names one":     {[]string{p.top + "/start"}, 2},
		"a shim of pyenv":             {[]string{pyenv + "/shims/python3"}, 0},
		"its folder is too wide":      {[]string{venv + "/bin/python", "try", p.top + "/start"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			argv, err := c.Command(confine.Program{Command: append(slices.Clone(tc.command), things...)}, nil, p.runs)
			must(t, err)
			came := output(t, argv)
			for i, thing := range things {
				if i < tc.open && came[thing] != "" || i >= tc.open && !strings.Contains(came[thing], "permission denied") {
					t.Errorf("%s: %q", thing, came[thing])
				}
			}
		})
	}
}
