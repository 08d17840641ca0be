package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"atelier/common/secret"
)

const canary = "Zq9/canary+ü%40\"w7"

func TestMain(m *testing.M) {
	switch os.Getenv("SECRET_TEST") {
	case "crash": // shows how a process ends that holds a secret
		text := secret.FromEnv("SECRET_TEST_CANARY")
		if os.Getenv("SECRET_TEST_HARDEN") != "" {
			if err := secret.Harden(); err != nil {
				panic(err)
			}
		}
		type holder struct{ password secret.Text }
		panic(fmt.Errorf("connect as %+v with %s: %q", holder{text}, text, text))
	case "environ":
		secret.HideEnvironment()
		out, err := exec.Command("env").Output()
		fmt.Printf("%s%v %v", out, err, secret.FromEnv("SERPAPI_API_KEY").Reveal() == canary)
		return
	}
	os.Exit(m.Run())
}

// Whatever prints a secret, alone or within something, prints none of it.
func TestNothingPrintsIt(t *testing.T) {
	type config struct {
		Name     string
		Password secret.Text
		hidden   secret.Text
		Several  []secret.Text
		By       map[string]secret.Text
		Key      map[secret.Text]int
		To       *secret.Text
	}
	x := secret.New(canary)
	c := config{"redis", x, x, []secret.Text{x}, map[string]secret.Text{"a": x}, map[secret.Text]int{x: 1}, &x}
	var out bytes.Buffer
	for _, v := range []any{x, &x, c, &c, []config{c}, struct{ X any }{x}, errors.Join(fmt.Errorf("with %v", x))} {
		for _, verb := range strings.Split("%v %+v %#v %s %q %x %X %d %t %p %T %08.3f %-40s %U", " ") {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		log.New(&out, "", 0).Println(v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("a", "b", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("a", "b", v, slog.Group("g", "c", v))
	}
	for _, encode := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal, xml.Marshal, func(v any) ([]byte, error) {
		var b bytes.Buffer
		err := gob.NewEncoder(&b).Encode(v)
		return b.Bytes(), err
	}} {
		for _, v := range []any{x, &x, []secret.Text{x}, struct{ P secret.Text }{x}} {
			b, err := encode(v)
			fmt.Fprintf(&out, "%s %v\n", b, err)
		}
	}
	b, err := json.Marshal(map[secret.Text]int{x: 1})
	fmt.Fprintf(&out, "%s %v\n", b, err)
	for _, form := range append(secret.Forms(canary), "canary", fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprint([]byte(canary))) {
		if strings.Contains(out.String(), form) {
			t.Errorf("shown as %s", form)
		}
	}
	if n := strings.Count(out.String(), secret.Shown); n < 100 {
		t.Errorf("%s stands %d times in\n%s", secret.Shown, n, &out)
	}
	if x.Reveal() != canary || !x.Set() || secret.New("").Set() || (secret.Text{}).Reveal() != "" || fmt.Sprint(secret.Text{}) != "" {
		t.Error("what it holds")
	}
}

func TestRedact(t *testing.T) {
	x, part := secret.New(canary), secret.New("canary")
	for _, form := range secret.Forms(canary) {
		text := "error: <" + form + "> is wrong"
		if got := secret.Redact(text, part, secret.Text{}, x); got != "error: <[secret]> is wrong" {
			t.Errorf("%s became %s", text, got)
		}
	}
	if got := secret.Redact("nothing", secret.Text{}); got != "nothing" {
		t.Error(got)
	}
}

func TestFromFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	for _, c := range []struct {
		text string
		mode os.FileMode
		says string // "" = it is taken
	}{
		{canary + "\n", 0o600, ""},
		{canary + "\r\n", 0o400, ""},
		{canary, 0o600, ""},
		{canary, 0o640, "chmod 600 " + file},
		{canary, 0o604, "chmod 600 " + file},
		{canary, 0o620, "chmod 600 " + file},
		{canary + "\nmore\n", 0o600, "one line"},
		{"\n", 0o600, "one line"},
		{canary + "\x00", 0o600, "one line"},
		{canary + strings.Repeat("x", 64<<10), 0o600, "64 KiB"},
	} {
		os.Remove(file)
		if err := errors.Join(os.WriteFile(file, []byte(c.text), c.mode), os.Chmod(file, c.mode)); err != nil {
			t.Fatal(err)
		}
		got, err := secret.FromFile(file)
		if c.says == "" && (err != nil || got.Reveal() != canary) || c.says != "" && (err == nil || got.Set() || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%q with mode %04o: %v", c.text, c.mode, err)
		}
	}
	for _, none := range []string{dir, filepath.Join(dir, "none")} {
		if _, err := secret.FromFile(none); err == nil || !strings.Contains(err.Error(), none) {
			t.Errorf("%s: %v", none, err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	go os.WriteFile(fifo, []byte(canary+"\n"), 0)
	if got, err := secret.FromFile(fifo); err != nil || got.Reveal() != canary {
		t.Errorf("from a pipe: %v", err)
	}
}

func TestFromEnvironment(t *testing.T) {
	t.Setenv("SECRET_TEST_A", canary)
	for range 2 {
		if got := secret.FromEnv("SECRET_TEST_A"); got.Reveal() != canary {
			t.Error("it is not there")
		}
		if _, still := os.LookupEnv("SECRET_TEST_A"); still {
			t.Error("it is still in the environment")
		}
	}
	t.Setenv("SECRET_TEST_A", "")
	if secret.FromEnv("SECRET_TEST_A").Set() || secret.FromEnv("SECRET_TEST_B").Set() {
		t.Error("a secret out of nothing")
	}

	// A child inherits none.
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SECRET_TEST=environ", "SECRET_TEST_OTHER=seen")
	for _, name := range secret.Variables {
		cmd.Env = append(cmd.Env, name+"="+canary)
	}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), canary) || !strings.Contains(string(out), "SECRET_TEST_OTHER=seen") || !strings.HasSuffix(string(out), "<nil> true") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// A process that held a secret crashes: with all that Go can be asked to show, neither its
// last words nor a core dump hold it. Where core dumps become files, one that was not hardened
// leaves one, with the secret in it.
func TestCrash(t *testing.T) {
	pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
	cores := len(pattern) > 0 && pattern[0] != '|' && pattern[0] != '/' && syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 1 << 30, Max: 1 << 30}) == nil
	for _, harden := range []string{"yes", ""} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SECRET_TEST=crash", "SECRET_TEST_CANARY="+canary, "SECRET_TEST_HARDEN="+harden, "GOTRACEBACK=crash")
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("it did not crash: %v\n%s", err, out)
		}
		for _, form := range append(secret.Forms(canary), "canary") {
			if strings.Contains(string(out), form) {
				t.Errorf("shown as %s in\n%s", form, out)
			}
		}
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		switch {
		case harden != "" && (len(files) != 0 || exit.Sys().(syscall.WaitStatus).CoreDump()):
			t.Errorf("it left %v", files)
		case harden == "" && cores:
			if len(files) != 1 {
				t.Fatalf("not hardened it left %v: the test shows nothing", files)
			}
			if b, err := os.ReadFile(files[0]); err != nil || !bytes.Contains(b, []byte(canary)) {
				t.Errorf("the core dump of one that was not hardened does not hold the secret: %v", err)
			}
		}
	}
}
