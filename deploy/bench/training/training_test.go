package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atelier/common/kernels"
	"atelier/deploy/bench/harness"

	"sync/atomic"
	"testing"
)

func TestStepsFillABlock(t *testing.T) {
	for _, c := range []struct {
		perSecond float64
		want      int
	}{{0.1, 1}, {3.2, 3}, {6.1, 6}, {1e6, 50}} {
		if got := stepsIn(time.Second, c.perSecond); got != c.want {
			t.Errorf("%g steps a second: %d, want %d", c.perSecond, got, c.want)
		}
	}
}

func TestShares(t *testing.T) {
	var names []string
	for _, s := range shares(12) {
		names = append(names, s.String())
	}
	if got := strings.Join(names, " "); got != "1x12 2x6 3x4 4x3 6x2 12x1" {
		t.Error(got)
	}
}

func TestKeys(t *testing.T) {
	p := point{"resnet18", 64, 32, 2, "bf16", ""}
	var q point
	for _, p := range []point{p, {"resnet50", 224, 128, 2, "bf16", "cuda:1"}, p} {
		if !parseKey(p.key(), &q) || p != q {
			t.Errorf("%q read as %+v", p.key(), q)
		}
	}
	cores := 0
	q = point{}
	if !parseSlotsKey(slotsKey(p, 8), &q, &cores) || cores != 8 || q.Model != "resnet18" || q.Precision != "bf16" {
		t.Errorf("%q read as %+v, %d cores", slotsKey(p, 8), q, cores)
	}
	for _, other := range []string{"", "steps", slotsKey(p, 8), p.key() + " more"} {
		if parseKey(other, &q) {
			t.Errorf("%q read as %+v", other, q)
		}
	}
}

// The tables say what was measured and which bars were missed.
func TestTables(t *testing.T) {
	j, err := harness.OpenJournal("", "p")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	add := func(model string, size int, precision string, ours, peer float64) {
		s := steps{Auto: "channels_last", Rates: map[string][]float64{}, Peak: map[string]float64{}}
		for _, layout := range layouts {
			s.Rates["ours "+layout], s.Rates["pytorch "+layout] = []float64{ours, ours, ours}, []float64{peer, peer, peer}
			s.Peak["ours "+layout], s.Peak["pytorch "+layout] = 100, 400
		}
		if err := j.Add(point{model, size, 32, 2, precision, ""}.key(), time.Unix(0, 0), 0.25, s); err != nil {
			t.Fatal(err)
		}
	}
	add("resnet18", 64, "fp32", 150, 100)
	add("resnet18", 64, "bf16", 90, 100)
	add("vanilla", 64, "fp32", 600, 400)
	if err := j.Add(point{"mobilenet_v2", 64, 32, 2, "bf16", ""}.key(), time.Unix(0, 0), 0.25, steps{Auto: "channels_last",
		Rates: map[string][]float64{"ours default": {300}, "ours channels_last": {310}}, Peak: map[string]float64{"ours default": 100, "ours channels_last": 100},
		Fault: map[string]string{"pytorch default": "not implemented", "pytorch channels_last": "not implemented"}}); err != nil {
		t.Fatal(err)
	}
	got := throughputTables(j)
	for _, want := range []string{
		"### 2 threads, batch 32",
		"| resnet18 | 64 | 150 / 100 = **1.50** | 150 / 100 = **1.50** | 90.0 / 100 = 0.90 |",
		"| vanilla | 64 | 600 / 400 = **1.50** | 600 / 400 = **1.50** | - | - |",
		"100 / 400 = 0.25",
		"| mobilenet_v2 | 64 | - | - | 300 / - | 310 / - |",
		"PyTorch cannot train mobilenet_v2 in bf16, default (not implemented);",
		"Bars missed: resnet18 64 px bf16 default 0.90; resnet18 64 px bf16 channels_last 0.90; resnet18 64 px bf16 own default 0.90; geometric mean of our bf16 default 0.90 (bar 1.5).",
		"0.2 to 0.2",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if err := j.Add(slotsKey(point{Model: "vanilla", Size: 64, Batch: 32, Precision: "fp32"}, 2), time.Unix(0, 0), 0.1,
		together{map[string][]float64{"1x2": {100, 100}, "2x1": {130, 130}}, map[string]float64{"1x2": 300, "2x1": 200}}); err != nil {
		t.Fatal(err)
	}
	if got := slotsTable(j); !strings.Contains(got, "| vanilla | 64 | fp32 | 100 | 130 | 300 | 400 | **1.30** |") {
		t.Error(got)
	}
	five := []float64{1, 1, 1, 1, 2}
	for i, seconds := range []float64{10, 11} {
		for side, factor := range map[string]float64{"ours": 1, "PyTorch": 2.5} {
			one := training{harness.Used{Wall: seconds * factor, CPU: 18, Peak: 300}, five, 0.5}
			if err := j.Add(endKey(side, i+1), time.Unix(0, 0), 0.1, one); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := endTable(j); !strings.Contains(got, "| ours | 10.5 (10.0 11.0) | 1.00 | 4.50 | 0.50 | 18.0 | 300 |") || !strings.Contains(got, "PyTorch / ours: **2.50** (bar 2.0)") {
		t.Error(got)
	}
}

// Each kernel of the table has a row, which names what it stands in for.
func TestKernelsTable(t *testing.T) {
	j, err := harness.OpenJournal("", "p")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if got := kernelsTable(j); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	for i, size := range []int{224, 64} {
		s := steps{Rates: map[string][]float64{"with": {120, 130, 140}, "without": {60, 65, 70 + 10*float64(i)}}}
		if err := j.Add(kernelsKey("max_pool", point{"vanilla", size, 32, 2, "bf16", ""}), time.Unix(0, 0), 0.25, s); err != nil {
			t.Fatal(err)
		}
	}
	got := kernelsTable(j)
	for _, want := range []string{"### Kernels, 2 threads, batch 32,", "| max_pool | gotorch's MaxPool2d | vanilla | - | 130 / 65.0 = **2.00** | - | 130 / 65.0 = **2.00** |", "| all | libtorch's operators | resnet18 | - | - | - | - |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for _, k := range kernels.All {
		if !strings.Contains(got, "| "+k.Name+" | "+k.Replaces+" |") {
			t.Errorf("no row for %s", k.Name)
		}
	}
}

func TestAtOnce(t *testing.T) {
	done := make([]atomic.Int32, 20)
	if err := atOnce(3, len(done), func(i int) error { done[i].Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range done {
		if done[i].Load() != 1 {
			t.Errorf("%d done %d times", i, done[i].Load())
		}
	}
	var begun atomic.Int32
	wrong := errors.New("seed 2")
	err := atOnce(1, 20, func(i int) error {
		begun.Add(1)
		if i == 2 {
			return wrong
		}
		return nil
	})
	if !errors.Is(err, wrong) || begun.Load() != 3 {
		t.Errorf("%v after %d", err, begun.Load())
	}
}

// Every image goes to one part, shares by class, the same each time.
func TestSplitImages(t *testing.T) {
	from := t.TempDir()
	for class, n := range map[string]int{"gothic": 10, "tudor": 5} {
		if err := os.MkdirAll(filepath.Join(from, class), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := os.WriteFile(filepath.Join(from, class, string(rune('a'+i))+".jpg"), []byte{byte(i)}, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	parts := func() string {
		to := t.TempDir()
		if err := splitImages(from, to); err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, part := range []string{"train", "validation", "test"} {
			for _, class := range []string{"gothic", "tudor"} {
				files, err := os.ReadDir(filepath.Join(to, part, class))
				if err != nil {
					t.Fatal(err)
				}
				names := part + " " + class + " "
				for _, f := range files {
					names += strings.TrimSuffix(f.Name(), ".jpg")
				}
				all = append(all, names)
			}
		}
		return strings.Join(all, "; ")
	}
	first := parts()
	if again := parts(); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	letters, lengths := map[rune]int{}, []int{}
	for group := range strings.SplitSeq(first, "; ") {
		names := group[strings.LastIndexByte(group, ' ')+1:]
		lengths = append(lengths, len(names))
		for _, r := range names {
			letters[r]++
		}
	}
	if want := []int{6, 3, 2, 1, 2, 1}; !slices.Equal(lengths, want) || len(letters) != 10 || letters['a'] != 2 || letters['j'] != 1 {
		t.Errorf("%v, want %v: %s", lengths, want, first)
	}
	if err := splitImages(filepath.Join(from, "gothic"), t.TempDir()); err == nil || !strings.Contains(err.Error(), "0 subfolders") {
		t.Error(err)
	}
}

func TestSeedsTable(t *testing.T) {
	j, err := harness.OpenJournal("", "p")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for seed, accuracy := range []float64{0.5, 0.6, 0.7} {
		for _, cutmix := range []bool{false, true} {
			o := outcome{TestAcc: accuracy, TestImages: 40, BestValAcc: 0.5, Status: "finished"}
			if cutmix {
				o.TestAcc += 0.1
			}
			if err := j.Add(seedKey("/data/styles", []string{"lr=0.1", "epochs=2"}, cutmix, seed+1), time.Unix(0, 0), 0, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := seedsTable(j)
	for _, want := range []string{"| off | 3 | **0.600** | 0.100 | 0.500 0.600 0.700 | 0.500 | 40 |", "| on | 3 | **0.700** |", "Settings: `styles: lr=0.1 epochs=2`."} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// A program that ends instead of answering is told with what it said.
func TestProgramThatFails(t *testing.T) {
	p, err := startPaced(context.Background(), "ours default", []string{"/bin/sh", "-c", "echo no such model >&2; exit 3"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ready(); err == nil || !strings.Contains(err.Error(), "no such model") || !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	p.kill()

	p, err = startPaced(context.Background(), "ours default", []string{"/bin/sh", "-c", `echo '{"ready":true,"auto":"channels_last"}'; while read n; do echo "{\"images_per_s\":$n}"; done`})
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	if err := p.ready(); err != nil || p.auto != "channels_last" {
		t.Fatal(p.auto, err)
	}
	if rate, err := p.block(7); err != nil || rate != 7 {
		t.Error(rate, err)
	}
	if _, err := p.block(0); err == nil || !strings.Contains(err.Error(), "no rate") {
		t.Error(err)
	}
	if mib, err := p.close(); err != nil || mib <= 0 {
		t.Error(mib, err)
	}
}
