package agent

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"atelier/common/inference"
	"atelier/common/trial"
	"atelier/worker/store"
)

// An alias names one file, also where two runs of a trial kept one of the same epoch.
func TestModelOfAnAliasIsThatVeryFile(t *testing.T) {
	st, err := store.Open(store.Config{Root: t.TempDir(), Cache: t.TempDir()}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	x := &index{}
	var sums []string
	for token := range uint64(2) {
		dir, err := st.RunDir(lease("s-a", 1, token+1))
		if err != nil {
			t.Fatal(err)
		}
		file, text := filepath.Join(dir, "e3.pth"), fmt.Sprint("weights of run ", token+1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		at, err := st.Location(file)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, fmt.Sprintf("%x", sha256.Sum256([]byte(text))))
		x.rows = append(x.rows, trial.Checkpoint{Sweep: "s-a", Trial: 1, Epoch: 3, Size: int64(len(text)), SHA256: sums[token], Location: at, Token: token + 1})
	}
	a := &Agent{cfg: Config{Store: st, Index: x}}
	for i, want := range []string{"weights of run 1", "weights of run 2"} {
		file, err := a.model(t.Context(), &inference.Stored{Sweep: "s-a", Trial: 1, Epoch: 3, SHA256: sums[i]})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(file); string(b) != want {
			t.Errorf("the file of %s... holds %q, %v", sums[i][:8], b, err)
		}
	}
	if _, err := a.model(t.Context(), &inference.Stored{Sweep: "s-a", Trial: 1, Epoch: 3, SHA256: sums[0][1:] + "0"}); err == nil {
		t.Error("another file of that epoch was taken for it")
	}
}
