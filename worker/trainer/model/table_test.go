//go:build libtorch

package model_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"atelier/common/checkpoint/arch"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/torchx"
)

var update = flag.Bool("update", false, "write common/checkpoint/arch/architectures.txt anew")

// TestTableOfArchitectures: what the command knows of each architecture
// without libtorch is what the models have.
func TestTableOfArchitectures(t *testing.T) {
	const classes = 3
	var out strings.Builder
	for _, name := range model.Names() {
		m, err := model.New(name, model.Options{Classes: classes, Dropout: -1})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "= %s %s\n", name, m.Head)
		table := arch.Known(name)
		var want []string
		for _, e := range m.State() {
			shape := []int64{}
			if e.Kind != nn.Counter {
				info, err := torchx.Describe(e.Tensor)
				if err != nil {
					t.Fatal(err)
				}
				shape = info.Shape
			}
			if strings.HasPrefix(e.Name, m.Head+".") {
				shape[0] = 0 // as many as there are classes
			}
			want = append(want, fmt.Sprint(e.Name, shape))
			layer, part := e.Name[:strings.LastIndex(e.Name, ".")], e.Name[strings.LastIndex(e.Name, ".")+1:]
			switch part {
			case "weight":
				if len(shape) > 1 {
					fmt.Fprintf(&out, "%s %s\n", layer, strings.Trim(fmt.Sprint(shape), "[]"))
				} else {
					fmt.Fprintf(&out, "%s norm %d\n", layer, shape[0])
				}
			case "bias":
				if !strings.HasSuffix(strings.TrimSpace(out.String()), fmt.Sprintf("norm %d", shape[0])) {
					fmt.Fprintf(&out, "%s bias %d\n", layer, shape[0])
				}
			}
		}
		var got []string
		for _, p := range table {
			got = append(got, fmt.Sprint(p.Name, p.Shape))
		}
		if !*update && !slices.Equal(got, want) {
			t.Errorf("%s: the table has %d tensors, the model %d; write it anew with -update", name, len(got), len(want))
		}
		m.Free()
	}
	if *update {
		if err := os.WriteFile("../../../common/checkpoint/arch/architectures.txt", []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
