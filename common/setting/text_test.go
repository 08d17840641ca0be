package setting_test

import (
	"encoding/json"
	"strings"
	"testing"

	"atelier/common/setting"
)

func typed() *setting.Config {
	is := func(what string, fits func(v any) bool) setting.Type { return setting.Is(what, fits) }
	return setting.New(setting.Table{
		{Name: "folder", Type: setting.Text("a text")},
		{Name: "seed", Default: int64(42), Type: setting.Unsigned()},
		{Name: "lr", Default: 0.1, Type: setting.Within(0, 1)},
		{Name: "augment", Default: true, Type: setting.Truth()},
		{Name: "endings", Default: []any{".jpg"}, Type: is("a list", func(v any) bool { _, ok := v.([]any); return ok })},
		{Name: "mean", Default: []any{0.5}, Type: setting.List("numbers", 0, setting.Within(0, 1).Fits)},
	})
}

// A text is taken as it was typed, every byte; what YAML would make of it is
// another folder.
func TestTextsAreVerbatim(t *testing.T) {
	for _, text := range []string{"pics #2/train", "!x.jpg", " lead.jpg", "trail ", "010", "2026", "null", "true", "~", "~x", "a: b", "- a", "[a]", "{a: b}", "&a", "*a", "'a'", `"a"`, "%a", "@a", "`a", "|", ">", "? a", "a\tb", "#", "1e3", "---", "é\xe4"} {
		c := typed()
		c.Home = "/home/ada"
		want := text
		if text == "~" {
			want = "/home/ada"
		}
		if err := c.SetText("folder", text, setting.Flag, "--folder"); err != nil || c.String("folder") != want {
			t.Errorf("--folder %q is taken as %q (%v)", text, c.String("folder"), err)
		}
		if err := c.ReadEnvironment("X_", []string{"X_FOLDER=" + text}); err != nil {
			t.Errorf("variable %q: %v", text, err)
		}
	}
}

func TestHome(t *testing.T) {
	c := typed()
	c.Home = "/home/ada"
	if err := c.SetText("folder", "~/pics", setting.Flag, "--folder"); err != nil || c.String("folder") != "/home/ada/pics" {
		t.Errorf("%q, %v", c.String("folder"), err)
	}
	c = typed()
	c.Home = "/home/ada"
	if err := c.ReadFile("f.yaml", []byte("folder: ~/pics\n")); err != nil || c.String("folder") != "/home/ada/pics" {
		t.Errorf("%q, %v", c.String("folder"), err)
	}
	if err := typed().SetText("folder", "~/pics", setting.Flag, "--folder"); err == nil || !strings.Contains(err.Error(), "HOME is not set") {
		t.Errorf("without HOME: %v", err)
	}
}

// What is no text is a value that spans all that was typed, or it is refused.
func TestValuesSpanTheText(t *testing.T) {
	for _, x := range []struct{ key, text, want, fault string }{
		{key: "seed", text: "1e3", want: "1000"},
		{key: "seed", text: "1000", want: "1000"},
		{key: "seed", text: "18446744073709551615", want: "18446744073709551615"},
		{key: "seed", text: "010", fault: "begins with a zero"},
		{key: "seed", text: "-07", fault: "begins with a zero"},
		{key: "seed", text: "0x10", fault: "want a whole number"},
		{key: "seed", text: "1_000", fault: "want a whole number"},
		{key: "seed", text: "7 # lucky", fault: "want a whole number"},
		{key: "seed", text: " 7", fault: "want a whole number"},
		{key: "seed", text: "7\n", fault: "want a whole number"},
		{key: "seed", text: "!!int 7", fault: "want a whole number"},
		{key: "seed", text: "", fault: "want a whole number"},
		{key: "seed", text: "null", fault: "it has no value"},
		{key: "lr", text: "0.1", want: "0.1"},
		{key: "lr", text: ".5", want: "0.5"},
		{key: "lr", text: "1e-3", want: "0.001"},
		{key: "lr", text: "00.1", fault: "begins with a zero"},
		{key: "lr", text: "0.1 #", fault: "want a number"},
		{key: "lr", text: "1e999", fault: "out of range"},
		{key: "lr", text: ".inf", fault: "want a number"},
		{key: "augment", text: "false", want: "false"},
		{key: "augment", text: "false # why", fault: "want true or false"},
		{key: "augment", text: "no", fault: "want true or false"},
		{key: "endings", text: "[.jpg, png]", want: `[".jpg","png"]`},
		{key: "endings", text: `["a, b", 'c #d', e#f]`, want: `["a, b","c #d","e#f"]`},
		{key: "endings", text: "[.jpg] # all", fault: "want a list"},
		{key: "endings", text: "[.jpg,, .png]", fault: "commas between"},
		{key: "endings", text: "[]", want: "[]"},
		{key: "mean", text: "[0.5, 1, .25]", want: "[0.5,1,0.25]"},
		{key: "mean", text: "[0.5, 01]", fault: "begins with a zero"},
		{key: "mean", text: "[[1]]", fault: "numbers and words only"},
	} {
		c := typed()
		err := c.SetText(x.key, x.text, setting.Flag, "--"+x.key)
		switch {
		case x.fault == "" && (err != nil || c.Get(x.key).Text() != x.want):
			t.Errorf("%s=%q: %s, %v; want %s", x.key, x.text, c.Get(x.key).Text(), err, x.want)
		case x.fault != "" && (err == nil || !strings.Contains(err.Error(), x.fault)):
			t.Errorf("%s=%q: taken as %s (%v), want %q", x.key, x.text, c.Get(x.key).Text(), err, x.fault)
		}
	}
}

// In a file a number with a leading zero is refused, and a folder may be called
// one.
func TestZerosInAFile(t *testing.T) {
	if err := typed().ReadFile("f.yaml", []byte("seed: 010\n")); err == nil || !strings.Contains(err.Error(), "f.yaml:1: seed: 010 begins with a zero") {
		t.Error(err)
	}
	c := typed()
	if err := c.ReadFile("f.yaml", []byte("folder: 010\nseed: 1e3\n")); err != nil || c.String("folder") != "010" || c.Get("seed").Data != int64(1000) {
		t.Errorf("%v, %v", c.All(), err)
	}
}

// Whatever is typed, what is taken can be written as JSON and read again as the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"1", "010", "[1, 'a', \"b\"]", "[", "[a,]", "null", "-.5e-3", "a #b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := setting.Parse(text)
		if err != nil {
			return
		}
		if s, ok := v.(string); ok && s != text {
			t.Fatalf("%q is taken as the text %q", text, s)
		}
		if _, err := json.Marshal(v); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
