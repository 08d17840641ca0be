package hint

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"atelier/common/client"
	"atelier/common/secret"
	"atelier/common/trainerproto"
	"atelier/tuner/data/scrape"
	"atelier/tuner/session"
)

func TestCases(t *testing.T) {
	for message, want := range map[string]string{
		"train: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 8 GiB total)":                                "out of GPU memory",
		"the trainer ended (signal: killed) without an error message":                                               "killed",
		"DefaultCPUAllocator: can't allocate memory: you tried to allocate 1234567890 bytes":                        "out of memory",
		"CUDA error: no kernel image is available for execution on the device":                                      "GPU",
		"atelier-trainer: error while loading shared libraries: libcgotorch.so: cannot open shared object file":     "missing library",
		"image folder /x/none does not exist: give a folder with one subfolder of images per class":                 "no such folder",
		"folder /x/train does not exist: name it with --train DIR (atelier data synth DIR draws one)":               "",
		"classes differ: train folder has \"a\", validation folder has not: use the same class folders in both":     "classes differ",
		"serve: listen tcp 127.0.0.1:8501: bind: address already in use; choose another with --listen":              "port in use",
		"pack x: no usable image is left in class \"a\"":                                                            "broken images",
		"open /x/checkpoints/best_model.pth: no such file or directory":                                             "no such checkpoint",
		"mlflow.tracking_uri: http://127.0.0.1:5000: dial tcp: connect: connection refused":                         "tracking server",
		"write /data/x: no space left on device":                                                                    "no space left",
		"mkdir /data/x: permission denied":                                                                          "permission",
		"image folder x has no class folders: put the pictures of each class into a subfolder":                      "no images",
		"infer: paths.image_dir (--image-dir): there is no /x/nosuch; /x holds checkpoints, pictures":               "",
		"image folder /x/checkpoints/pictures does not exist: give a folder with one subfolder of images per class": "no such folder",
		"read the spec: open spec.yaml: no such file or directory":                                                  "",
		"sweep s-k3v9q2ma is not there":                                                                             "",
	} {
		got := ""
		if c := find(errors.New(message)); c != nil {
			got = c.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", message, got, want)
		}
	}
	gone, frozen, noLeader, unwilling := client.Finding{Kind: client.Gone}, client.Finding{Kind: client.Slow}, client.Finding{Kind: client.NoLeader}, client.Finding{Kind: client.Unwilling}
	unreachable := func(found ...client.Finding) error { return &client.UnreachableError{Addr: "a:1", Found: found} }
	_, noKey := scrape.ReadKey("", func(string) secret.Text { return secret.Text{} })
	_, noFile := scrape.ReadKey("/nosuch", nil)
	for i, x := range []struct {
		err  error
		want string
	}{
		{noKey, "no key"}, {noFile, "no key"}, {fmt.Errorf("data scrape: %w", scrape.ErrKey), "no key"}, {scrape.ErrNoQuota, "quota"},
		{errors.New("SerpAPI answered 429: you have exceeded your hourly limit"), "quota"},
		{unreachable(), "no coordinator"}, {fmt.Errorf("sweep list: %w", unreachable(gone)), "no coordinator"}, {unreachable(gone, frozen), "frozen coordinator"},
		{unreachable(noLeader, gone), "no leader"}, {unreachable(noLeader, frozen), "no leader"}, {unreachable(unwilling, gone), ""},
		{&session.Failure{Class: trainerproto.FailedOutOfMemory, Message: "it was too much"}, "out of memory"},
		{&session.Failure{Class: trainerproto.FailedOutOfMemory, Message: "CUDA out of memory. Tried to allocate 2.00 GiB"}, "out of GPU memory"},
		{&session.Failure{Class: trainerproto.FailedDiskFull, Message: "write: short"}, "no space left"},
		{&session.Failure{Class: trainerproto.FailedBadSpec, Message: "lr: want more than 0"}, ""},
	} {
		got := ""
		if c := find(x.err); c != nil {
			got = c.Name
		}
		if got != x.want {
			t.Errorf("%d, %v: %q, want %q", i, x.err, got, x.want)
		}
	}
	dns := client.Finding{Kind: client.Gone, Err: &net.DNSError{IsNotFound: true}}
	for _, x := range []struct {
		origin Origin
		found  client.Finding
		want   string
		begin  bool // a new cluster is proposed
	}{
		{Default, gone, "no address was given", true}, {Flag, gone, "comes from --addr", false}, {Environment, gone, "unset ATELIER_ADDR", false},
		{Recorded, gone, "begun with", false}, {Context, gone, "the context", false}, {Flag, dns, "getent hosts", false}, {Environment, noLeader, "atelier cluster status", false},
	} {
		text := strings.Join(For(unreachable(x.found), x.origin, "list"), "; ")
		if !strings.Contains(text, x.want) || strings.Contains(text, "--bootstrap") != x.begin {
			t.Errorf("%v, %v: %s", x.origin, x.found, text)
		}
	}
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.Name] || len(c.Advice) == 0 {
			t.Errorf("%s: twice, or without advice", c.Name)
		}
		seen[c.Name] = true
		for _, a := range c.Advice {
			if strings.TrimSpace(a) == "" || strings.HasSuffix(a, ".") {
				t.Errorf("%s: %q", c.Name, a)
			}
		}
	}
}

// Advice fits the command that failed, and the machine.
func TestAdviceFitsTheCommand(t *testing.T) {
	text := func(err error, command string) string { return strings.Join(For(err, Unknown, command), "\n") }
	empty, killed := errors.New("image folder x has no class folders"), errors.New("the trainer was killed from outside (SIGKILL)")
	for i, x := range []struct {
		err     error
		command string
		with    string
		without string
	}{
		{empty, "infer", "processing.extensions", "--batch-size"},
		{empty, "train", "atelier data info FOLDER", "processing.extensions"},
		{killed, "infer", "processing.batch_size", "--batch-size"},
		{killed, "train", "--batch-size 16", "processing."},
		{killed, "serve", "dmesg", "batch"},
		{&session.Failure{Message: "no such folder: folder /x/train does not exist", Remote: true}, "infer", "as that machine sees them", "working folder"},
		{&session.Failure{Message: "no such folder: folder /x/train does not exist"}, "infer", "working folder", "as that machine"},
	} {
		if got := text(x.err, x.command); !strings.Contains(got, x.with) || strings.Contains(got, x.without) {
			t.Errorf("%d, %s: want %q and not %q in\n%s", i, x.command, x.with, x.without, got)
		}
	}
	for _, c := range cases {
		if looks[c.Name] == "" {
			t.Errorf("the page does not show what %q looks like", c.Name)
		}
	}
	for line := range byCommand {
		if !slices.ContainsFunc(cases, func(c Case) bool { return slices.Contains(c.Advice, line) }) {
			t.Errorf("in no case: %s", line)
		}
	}
}

// A busy port is looked up where every listening program is listed: the cluster's status shows no atelier serve.
func TestBusyPortIsLookedUpWithSS(t *testing.T) {
	text := strings.Join(For(errors.New("serve: listen tcp 127.0.0.1:8501: bind: address already in use"), Unknown, "serve"), "\n")
	if !strings.Contains(text, "ss -ltnp") || strings.Contains(text, "cluster status") {
		t.Error(text)
	}
}
