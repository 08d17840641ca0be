// Package weights fetches the weights that torchvision publishes, by an architecture's name, and turns weight
// files from one form into another.
//
// A published file carries the first eight digits of its SHA-256 in its name; a file stands in the cache under
// that name only after they were compared. The package refuses a file whose digits differ, a file larger than it
// can be, and it opens nothing that it downloads: reading is common/checkpoint's, which executes nothing.
package weights

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Server is where torchvision's files lie.
const Server = "https://download.pytorch.org/models"

// Published is one file of weights that somebody publishes.
type Published struct {
	// Name is what a person asks for: the architecture, for its default weights; with "-v1" for the first ones
	// where there are newer ones; or the file's own name.
	Name string
	// Weights is torchvision's name of them, such as IMAGENET1K_V1; empty for a file asked for by its own name.
	Weights string
	// File is the name on the server.
	File string
	// Parameters is the number of trained values; 0 where it is not known.
	Parameters int64
}

// The files that torchvision names. The EfficientNets are those of torchvision 0.16 and later: the names of
// 0.14 and 0.15 carry digits that the files on the server no longer have.
var catalogue = []Published{
	{"efficientnet_b0", "IMAGENET1K_V1", "efficientnet_b0_rwightman-7f5810bc.pth", 5_288_548},
	{"efficientnet_b1", "IMAGENET1K_V2", "efficientnet_b1-c27df63c.pth", 7_794_184},
	{"efficientnet_b1-v1", "IMAGENET1K_V1", "efficientnet_b1_rwightman-bac287d4.pth", 7_794_184},
	{"efficientnet_b2", "IMAGENET1K_V1", "efficientnet_b2_rwightman-c35c1473.pth", 9_109_994},
	{"efficientnet_b3", "IMAGENET1K_V1", "efficientnet_b3_rwightman-b3899882.pth", 12_233_232},
	{"efficientnet_b4", "IMAGENET1K_V1", "efficientnet_b4_rwightman-23ab8bcd.pth", 19_341_616},
	{"mobilenet_v2", "IMAGENET1K_V2", "mobilenet_v2-7ebf99e0.pth", 3_504_872},
	{"mobilenet_v2-v1", "IMAGENET1K_V1", "mobilenet_v2-b0353104.pth", 3_504_872},
	{"mobilenet_v3_large", "IMAGENET1K_V2", "mobilenet_v3_large-5c1a4163.pth", 5_483_032},
	{"mobilenet_v3_large-v1", "IMAGENET1K_V1", "mobilenet_v3_large-8738ca79.pth", 5_483_032},
	{"mobilenet_v3_small", "IMAGENET1K_V1", "mobilenet_v3_small-047dcff4.pth", 2_542_856},
	{"resnet18", "IMAGENET1K_V1", "resnet18-f37072fd.pth", 11_689_512},
	{"resnet34", "IMAGENET1K_V1", "resnet34-b627a593.pth", 21_797_672},
	{"resnet50", "IMAGENET1K_V2", "resnet50-11ad3fa6.pth", 25_557_032},
	{"resnet50-v1", "IMAGENET1K_V1", "resnet50-0676ba61.pth", 25_557_032},
	{"resnet101", "IMAGENET1K_V2", "resnet101-cd907fc2.pth", 44_549_160},
	{"resnet101-v1", "IMAGENET1K_V1", "resnet101-63fe2227.pth", 44_549_160},
	{"resnet152", "IMAGENET1K_V2", "resnet152-f82ba261.pth", 60_192_808},
	{"resnet152-v1", "IMAGENET1K_V1", "resnet152-394f9c45.pth", 60_192_808},
	{"vgg11", "IMAGENET1K_V1", "vgg11-8a719046.pth", 132_863_336},
	{"vgg13", "IMAGENET1K_V1", "vgg13-19584684.pth", 133_047_848},
	{"vgg16", "IMAGENET1K_V1", "vgg16-397923af.pth", 138_357_544},
	{"vgg19", "IMAGENET1K_V1", "vgg19-dcbb9e9d.pth", 143_667_240},
}

// Catalogue is what is published, in order of name.
func Catalogue() []Published { return slices.Clone(catalogue) }

// Names are the names in the catalogue.
func Names() []string {
	names := make([]string, len(catalogue))
	for i, p := range catalogue {
		names[i] = p.Name
	}
	return names
}

var hashed = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.]*-([0-9a-f]{8,64})\.(pth|safetensors)$`)

// Find returns what a name stands for: an entry of the catalogue, or, for a file's name that carries its hash
// (NAME-1234abcd.pth), that file.
func Find(name string) (Published, error) {
	for _, p := range catalogue {
		if p.Name == name || p.File == name {
			return p, nil
		}
	}
	if hashed.MatchString(name) {
		return Published{Name: name, File: name}, nil
	}
	return Published{}, fmt.Errorf("no weights are published under the name %q", name)
}

// digits are those of the SHA-256 that the file's name promises.
func (p Published) digits() (string, error) {
	m := hashed.FindStringSubmatch(p.File)
	if m == nil {
		return "", fmt.Errorf("file name %q carries no hash", p.File)
	}
	return m[1], nil
}

const (
	spare   = 16 << 20 // what a file has beside four bytes a parameter: statistics, names, folders
	maxFile = 4 << 30
)

// Limit is the number of bytes that the file cannot exceed.
func (p Published) Limit() int64 {
	if p.Parameters == 0 {
		return maxFile
	}
	return 4*p.Parameters + p.Parameters/2 + spare
}

// Arch is the architecture that the weights are of.
func (p Published) Arch() string { return strings.TrimSuffix(p.Name, "-v1") }
