// Package kernels is the table of the trainer's own kernels. gotorch's
// functions, and through them libtorch's operators, are the ordinary way
// through a model; a kernel takes an operation's place where it is on and takes
// the tensors at hand. One choice, a line of words, turns all or named ones off.
//
// The table is what settings, the trainer and its benchmark share; the kernels
// themselves are worker/trainer/torchx's. The package refuses to know libtorch.
package kernels

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Kernel is a faster way to do one operation on a CPU.
type Kernel struct {
	Name       string
	Operation  string
	Replaces   string // what does it where the kernel is off or does not fit
	Precisions string
	Applies    string
}

// All lists the kernels; a position is a bit of Set and the number of TX_* in
// torchx.h.
var All = []Kernel{
	{"dense", "convolution of small images with many channels", "gotorch's Conv2d", "fp32, bf16",
		"channels_last, one group, 8 images and 16 channels or more, up to 16x16 places; AVX-512, in bf16 AVX512-BF16 without AMX"},
	{"depthwise", "depthwise convolution 3x3, 5x5, 7x7", "gotorch's Conv2d", "fp32, bf16", "channels_last, no bias"},
	{"norm", "batch normalisation with the factors, shortcut and activation behind it", "gotorch's BatchNorm, Mul, AddI, Relu", "fp32, bf16",
		"channels_last; in bf16 the default layout too"},
	{"max_pool", "maximum pooling", "gotorch's MaxPool2d", "fp32, bf16", "channels_last"},
	{"squeeze", "pooling and product of squeeze and excitation", "gotorch's AdaptiveAvgPool2d, Mul", "fp32, bf16", "channels_last"},
	{"optimizer", "update of SGD, Adam, AdamW, RMSprop in one pass", "libtorch's operators, three to ten passes", "fp32 (weights are)", "any layout"},
	{"augment", "crop, mirror, rotation and colours of a batch", "libtorch's operators over the batch", "before any", "always"},
}

// Set says which kernels are on: bit i is All[i].
type Set uint32

// Every is all of them.
var Every = Set(1)<<len(All) - 1

// Parse reads a choice: "all" or nothing, "none", names to turn off
// ("-dense,-norm"), or the names that are on ("dense,norm").
func Parse(choice string) (Set, error) {
	words := strings.Split(strings.ReplaceAll(choice, " ", ""), ",")
	var s Set
	if words[0] == "" || strings.HasPrefix(words[0], "-") {
		s = Every
	}
	for _, word := range words {
		name, off := strings.CutPrefix(word, "-")
		i := slices.IndexFunc(All, func(k Kernel) bool { return k.Name == name })
		switch {
		case choice == "":
		case word == "all":
			s = Every
		case word == "none":
			s = 0
		case i < 0:
			return 0, fmt.Errorf("no kernel %q; give all, none, or a list of %s, each with - before it to turn it off", name, strings.Join(names(Every), ", "))
		case off:
			s &^= 1 << i
		default:
			s |= 1 << i
		}
	}
	return s, nil
}

// Environment is the variable that overrides settings, for a process and all
// it starts.
const Environment = "ATELIER_KERNELS"

// Chosen is the environment's choice, else the setting's.
func Chosen(setting string) (Set, error) {
	if said := os.Getenv(Environment); said != "" {
		s, err := Parse(said)
		if err != nil {
			return 0, fmt.Errorf("environment variable %s: %w", Environment, err)
		}
		return s, nil
	}
	return Parse(setting)
}

// Has reports whether a kernel is on.
func (s Set) Has(name string) bool { return slices.Contains(names(s), name) }

// String is the choice that Parse reads back.
func (s Set) String() string {
	switch s {
	case Every:
		return "all"
	case 0:
		return "none"
	}
	return strings.Join(names(s), ",")
}

func names(s Set) (list []string) {
	for i, k := range All {
		if s&(1<<i) != 0 {
			list = append(list, k.Name)
		}
	}
	return list
}
