package kernels_test

import (
	"strings"
	"testing"

	"atelier/common/kernels"
)

func TestParse(t *testing.T) {
	for choice, want := range map[string]string{
		"":                   "all",
		"all":                "all",
		"none":               "none",
		"-dense":             "depthwise,norm,max_pool,squeeze,optimizer,augment",
		"-dense, -optimizer": "depthwise,norm,max_pool,squeeze,augment",
		"norm,dense":         "dense,norm",
		"none,norm":          "norm",
		"all,-norm,norm":     "all",
		"dense,-dense":       "none",
	} {
		s, err := kernels.Parse(choice)
		if err != nil || s.String() != want {
			t.Errorf("%q: %s, %v; want %s", choice, s, err, want)
		}
		if back, err := kernels.Parse(s.String()); err != nil || back != s {
			t.Errorf("%q reads back as %s, %v", s, back, err)
		}
	}
	for _, wrong := range []string{"fast", "-fast", "dense,", "-", "dense;norm", "-none"} {
		if s, err := kernels.Parse(wrong); err == nil || !strings.Contains(err.Error(), "dense, depthwise, norm") {
			t.Errorf("%q: %s, %v", wrong, s, err)
		}
	}
}

func TestEnvironmentOverridesTheSetting(t *testing.T) {
	t.Setenv(kernels.Environment, "")
	if s, err := kernels.Chosen("-norm"); err != nil || s.Has("norm") || !s.Has("dense") {
		t.Errorf("%s, %v", s, err)
	}
	t.Setenv(kernels.Environment, "norm")
	if s, err := kernels.Chosen("-norm"); err != nil || s.String() != "norm" {
		t.Errorf("%s, %v", s, err)
	}
	t.Setenv(kernels.Environment, "fast")
	if _, err := kernels.Chosen(""); err == nil || !strings.Contains(err.Error(), "ATELIER_KERNELS") {
		t.Error(err)
	}
}
