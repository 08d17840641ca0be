package hint

import (
	"strings"
	"testing"
)

func TestCases(t *testing.T) {
	for message, want := range map[string]string{
		"train: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 8 GiB total)":                                                                  "out of GPU memory",
		"the trainer ended (signal: killed) without a word":                                                                                           "out of memory",
		"DefaultCPUAllocator: can't allocate memory: you tried to allocate 1234567890 bytes":                                                          "out of memory",
		"CUDA error: no kernel image is available for execution on the device":                                                                        "GPU",
		"atelier-trainer: error while loading shared libraries: libcgotorch.so: cannot open shared object file":                                       "missing library",
		"image folder /x/none does not exist: give a folder with one subfolder of pictures for each class":                                            "no such folder",
		"folder /x/train does not exist: name it with --train DIR (atelier data synth DIR draws one)":                                                 "",
		"classes differ: train folder has \"a\", validation folder has not: use the same class folders in both":                                       "classes differ",
		"no SerpAPI key: set SERPAPI_API_KEY":                                                                                                         "no key",
		"no SerpAPI searches are left this month":                                                                                                     "quota",
		"serve: listen tcp 127.0.0.1:8501: bind: address already in use; choose another with --listen":                                                "port in use",
		"pack x: no usable picture is left in class \"a\"":                                                                                            "broken pictures",
		"open /x/checkpoints/best_model.pth: no such file or directory":                                                                               "no such checkpoint",
		"mlflow.tracking_uri: http://127.0.0.1:5000: dial tcp: connect: connection refused":                                                           "tracking server",
		"no coordinator answers at 127.0.0.1:7600 (11 attempts): nobody listens at 127.0.0.1:7600 (connection refused)":                               "no coordinator",
		"no coordinator answers at a:1, b:1: nobody listens at a:1 (connection refused); b:1 listens and does not answer (no answer within 1s)":       "frozen coordinator",
		"no leader answers: a:1 answers and has no leader (no leader: the coordinators are electing one); nobody listens at b:1 (connection refused)": "no leader",
		"write /data/x: no space left on device":                                                                                                      "no space left",
		"mkdir /data/x: permission denied":                                                                                                            "permission",
		"image folder x has no class folders: put the pictures of each class into a subfolder":                                                        "no pictures",
		"read the spec: open spec.yaml: no such file or directory":                                                                                    "",
		"sweep s-k3v9q2ma is not there":                                                                                                               "",
	} {
		got := ""
		if c := find(message); c != nil {
			got = c.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", message, got, want)
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
