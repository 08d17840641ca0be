package cli

import (
	"bytes"
	"testing"
)

// Advice and what is offered fold at spaces on a terminal, and are whole lines in a file.
func TestAdviceFoldsOnATerminal(t *testing.T) {
	print := func(live bool) string {
		var b bytes.Buffer
		e := &Env{Err: &b, Live: live, Width: func() int { return 40 }}
		e.hint("start the coordinators again, each on the data folder it had")
		e.offer(2, option{"checkpoints/resnet18_ep30/best_model.pth", "resnet18, 64 px, accuracy 0.98"})
		return b.String()
	}
	if got, want := print(true), `  - start the coordinators again, each
    on the data folder it had
   2  checkpoints/resnet18_ep30/best_model.pth
      resnet18, 64 px, accuracy 0.98
`; got != want {
		t.Errorf("%s", got)
	}
	if got, want := print(false), `  - start the coordinators again, each on the data folder it had
   2  checkpoints/resnet18_ep30/best_model.pth  resnet18, 64 px, accuracy 0.98
`; got != want {
		t.Errorf("%s", got)
	}
}
