package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atelier/common/checkpoint"
	"atelier/common/mlflow"
	"atelier/common/mlflow/mlflowtest"
)

// seer is a trainer that pretends to have looked at three images; it fails
// where the image folder is called bad. It stands on the PATH.
func seer(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
echo '{"event":"hello","protocol":1,"name":"torch","message":"pretended"}' >&3
read job
[ -z "$ATELIER_TEST_JOBS" ] || echo "$job" > "$ATELIER_TEST_JOBS/job"
case "$job" in *'"bad"'*)
  echo '{"event":"failed","class":"bad_spec","message":"no images"}' >&3
  exit 1;;
esac
base=$(echo "$job" | sed 's/.*"base_dir":"\([^"]*\)".*/\1/')
mkdir -p "$base/m/results/heatmaps"
echo pretended >> "$base/m/results/inference.log"
echo '{}' > "$base/m/results/evaluation_results.json"
echo picture > "$base/m/results/heatmaps/0001_a.png"
echo "{\"event\":\"done\",\"reason\":\"finished\",\"message\":\"{\\\"output_dir\\\":\\\"$base/m/results\\\",\\\"files\\\":[\\\"evaluation_results.json\\\",\\\"not_there.png\\\"],\\\"images\\\":3,\\\"pictures\\\":1,\\\"seconds\\\":1,\\\"architecture\\\":\\\"vgg11\\\",\\\"figures\\\":{\\\"accuracy\\\":0.75,\\\"flagged_share\\\":0.5},\\\"drawn\\\":[\\\"heatmaps/0001_a.png\\\",\\\"../outside.png\\\"]}\"}" >&3
`
	if err := os.WriteFile(filepath.Join(dir, "atelier-trainer"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

// tracked are the runs of an experiment below dir/mlruns.
func tracked(t *testing.T, dir, experiment string) []mlflow.RunInfo {
	t.Helper()
	store, err := mlflow.Open("", mlflow.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close(context.Background())
	runs, err := store.FindRuns(t.Context(), experiment, nil)
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// A tracked inference lies in mlruns/: in the experiment of its mode, with its
// settings, figures and files. Whether it is tracked is said by a flag, else by
// the person, else by the file.
func TestInferTracking(t *testing.T) {
	seer(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "conf/inference.yaml"), []byte("model: {checkpoint: m/best_model.pth}\nmlflow: {enabled: true}\n"))
	const question = "Track this run with MLflow? [Y/n]: "
	for _, c := range []struct {
		name     string
		terminal bool
		typed    string
		args     []string
		asked    bool
		runs     int // after it, of both experiments
	}{
		{"by the file", false, "", nil, false, 1},
		{"not, by flag", true, "", []string{"--no-mlflow"}, false, 1},
		{"not, by answer", true, "perhaps\nn\n", nil, true, 1},
		{"by answer", true, "\n", []string{"--mode", "explain_batch"}, true, 2},
		{"by flag", true, "", []string{"--mlflow", "--mode", "production"}, false, 3},
		{"quietly", true, "", []string{"-q", "--set", "mlflow.enabled=false"}, false, 3},
		{"one that fails", false, "", []string{"--image-dir", "bad"}, false, 4},
	} {
		r := talk(t, dir, c.terminal, c.typed, nil, append([]string{"infer"}, c.args...)...)
		if fails := c.name == "one that fails"; (r.code != 0) != fails || !fails && r.out != "m/results\n" {
			t.Fatalf("%s: %+v", c.name, r)
		}
		if strings.Contains(r.err, question) != c.asked {
			t.Errorf("%s: asked %v: %s", c.name, !c.asked, r.err)
		}
		evaluation, explainability := tracked(t, dir, "architectural-style-evaluation"), tracked(t, dir, "architectural-style-explainability")
		if n := len(evaluation) + len(explainability); n != c.runs {
			t.Errorf("%s: %d runs", c.name, n)
		}
	}
	explained := tracked(t, dir, "architectural-style-explainability")
	runs := tracked(t, dir, "architectural-style-evaluation")
	if len(explained) != 1 || explained[0].Name != "explain_batch_m" || len(runs) != 3 || runs[0].Name != "evaluate_m" || runs[2].Status != mlflow.Failed {
		t.Fatalf("%+v %+v", explained, runs)
	}
	for key, want := range map[string]string{"mode": "evaluate", "model": "vgg11", "stage": "evaluation", "status": "finished", "checkpoint": "m/best_model.pth"} {
		if got := runs[0].Tags[key]; got != want {
			t.Errorf("tag %s %q", key, got)
		}
	}
	store, err := mlflow.Open("", mlflow.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close(context.Background())
	params, err := store.Params(t.Context(), runs[0].ID)
	if err != nil || params["mode"] != "evaluate" || params["quality_metrics.thresholds.min_concentration"] != "0.25" || params["processing.batch_size"] != "32" {
		t.Errorf("%v %v", params, err)
	}
	for key, want := range map[string]float64{"accuracy": 0.75, "flagged_share": 0.5} {
		if points, err := store.History(t.Context(), runs[0].ID, key); err != nil || len(points) != 1 || points[0].Value != want {
			t.Errorf("%s %v %v", key, points, err)
		}
	}
	top, err := store.Artifacts(t.Context(), runs[0].ID, "")
	if err != nil || !slices.Equal(top, []string{"evaluation_results.json", "heatmaps"}) {
		t.Errorf("artifacts %v %v", top, err)
	}
	if maps, err := store.Artifacts(t.Context(), runs[0].ID, "heatmaps"); err != nil || !slices.Equal(maps, []string{"0001_a.png"}) {
		t.Errorf("heat maps %v %v", maps, err)
	}
}

// A server that is away costs a warning and never the inference; one that is
// there gets the run.
func TestInferTrackingServer(t *testing.T) {
	seer(t)
	dir := t.TempDir()
	t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
	server := mlflowtest.New(t)
	r := talk(t, dir, false, "", []string{"MLFLOW_TRACKING_URI=" + server.URL}, "infer", "--mlflow", "--checkpoint", "m/best_model.pth")
	if r.code != 0 || r.out != "m/results\n" {
		t.Fatalf("%+v", r)
	}
	b, err := http.Get(server.URL + "/api/2.0/mlflow/experiments/get-by-name?experiment_name=architectural-style-evaluation")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Body.Close()
	var got struct {
		Experiment struct{ Name string } `json:"experiment"`
	}
	if err := json.NewDecoder(b.Body).Decode(&got); err != nil || got.Experiment.Name != "architectural-style-evaluation" {
		t.Errorf("%+v %v", got, err)
	}
	if r := talk(t, dir, false, "", nil, "infer", "--mlflow", "--checkpoint", "m/best_model.pth", "--set", "mlflow.tracking_uri=mysql://x/y"); r.code == 0 || !strings.Contains(r.err, "--no-mlflow") {
		t.Errorf("a place that cannot be one: %+v", r)
	}
	if r := talk(t, dir, false, "", nil, "infer", "--mlflow", "--no-mlflow", "--checkpoint", "m/best_model.pth"); r.code != 2 {
		t.Errorf("both flags: %+v", r)
	}
}

// modelFile writes a model of two classes as a training leaves it.
func modelFile(t *testing.T, path string) {
	t.Helper()
	root := checkpoint.NewDict().Set("model_state_dict", checkpoint.NewDict().Set("w", checkpoint.NewF32([]float32{1}, 1))).Set("arch", "resnet18").
		Set("class_to_idx", checkpoint.NewDict().Set("gothic", int64(0)).Set("tudor", int64(1))).Set("image_size", int64(64))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Save(path, root); err != nil {
		t.Fatal(err)
	}
}

// historyFile writes the record of a training with a test accuracy.
func historyFile(t *testing.T, dir string, accuracy float64) {
	t.Helper()
	write(t, filepath.Join(dir, "training_history.json"), fmt.Appendf(nil,
		`{"epochs":[1],"train_loss":[1],"train_acc":[0.9],"val_loss":[1],"val_acc":[0.8],"lr":[0.1],"images_per_s":[9],"epoch_seconds":[1],"best_epoch":1,"best_val_acc":0.8,"test_acc":%v,"test_images":4}`, accuracy))
}

// A bare `+"`atelier infer`"+`: without a terminal it prints the command to type, with the
// best model and test images that fit it; on a terminal it offers both.
func TestBareInfer(t *testing.T) {
	seer(t)
	dir := t.TempDir()
	if r := talk(t, dir, false, "", nil, "infer"); r.code != 2 || !strings.Contains(r.err, "--checkpoint") || !strings.Contains(r.err, "atelier train makes one") {
		t.Errorf("nothing here: %+v", r)
	}
	for name, accuracy := range map[string]float64{"old": 0.75, "new": 0.5} {
		modelFile(t, filepath.Join(dir, "checkpoints", name, "best_model.pth"))
		historyFile(t, filepath.Join(dir, "checkpoints", name), accuracy)
	}
	for _, part := range []string{"train", "validation", "test"} {
		for _, class := range []string{"gothic", "tudor"} {
			write(t, filepath.Join(dir, "pics", part, class, "1.jpg"), []byte("a house"))
			write(t, filepath.Join(dir, "others", part, "not_"+class, "1.jpg"), []byte("a tree"))
		}
	}
	const next = "atelier infer --checkpoint checkpoints/old/best_model.pth --image-dir pics/test"
	if r := talk(t, dir, false, "", nil, "infer"); r.code != 2 || !strings.Contains(r.err, "Next: "+next+" (test accuracy 75.0 %)") {
		t.Errorf("no terminal: %+v", r)
	}
	if r := talk(t, dir, false, "", nil, "infer", "--checkpoint", "checkpoints/old/best_model.pth"); r.code != 2 || !strings.Contains(r.err, "Next: "+next) {
		t.Errorf("no images: %+v", r)
	}
	jobs := t.TempDir()
	t.Setenv("ATELIER_TEST_JOBS", jobs)
	job := func() string {
		b, _ := os.ReadFile(filepath.Join(jobs, "job"))
		return string(b)
	}
	r := talk(t, dir, true, "\n\n", nil, "infer", "--no-mlflow")
	if r.code != 0 || !strings.Contains(r.err, "1  checkpoints/old/best_model.pth  resnet18, 64 px, test accuracy 75.0 %") || !strings.Contains(r.err, "Folder of images [pics/test: test images of pics]") ||
		!strings.Contains(job(), "checkpoints/old/best_model.pth") || !strings.Contains(job(), `"image_dir":"pics/test"`) {
		t.Errorf("the first of each: %+v %s", r, job())
	}
	write(t, filepath.Join(dir, "mine/1.jpg"), []byte("a house"))
	r = talk(t, dir, true, "7\n2\nnowhere\nmine\n", nil, "infer", "--no-mlflow")
	if r.code != 0 || !strings.Contains(r.err, "There is no file 7.") || !strings.Contains(r.err, "There is no folder nowhere.") ||
		!strings.Contains(job(), "checkpoints/new/best_model.pth") || !strings.Contains(job(), `"image_dir":"mine"`) {
		t.Errorf("others: %+v %s", r, job())
	}
}

// A folder in place of a model is the best model in it, and the end of a run names
// what to look at and what to do next.
func TestInferTakesAFolder(t *testing.T) {
	seer(t)
	jobs := t.TempDir()
	t.Setenv("ATELIER_TEST_JOBS", jobs)
	dir := t.TempDir()
	for name, accuracy := range map[string]float64{"old": 0.75, "new": 0.5} {
		modelFile(t, filepath.Join(dir, "checkpoints", name, "best_model.pth"))
		historyFile(t, filepath.Join(dir, "checkpoints", name), accuracy)
	}
	for folder, want := range map[string]string{"checkpoints/new": "checkpoints/new/best_model.pth", "checkpoints": "checkpoints/old/best_model.pth"} {
		r := talk(t, dir, false, "", nil, "infer", "--checkpoint", folder, "--image-dir", "pics", "--no-mlflow")
		b, _ := os.ReadFile(filepath.Join(jobs, "job"))
		if r.code != 0 || !strings.Contains(r.err, folder+" is a folder: taking "+want+" (test accuracy ") || !strings.Contains(string(b), want) ||
			!strings.Contains(r.err, "Next:\n  atelier serve --checkpoint "+want) || !strings.Contains(r.err, "Look at:\n  m/results/heatmaps/0001_a.png") {
			t.Errorf("%s: %+v %s", folder, r, b)
		}
	}
	write(t, filepath.Join(dir, "pics/1.jpg"), nil)
	if r := talk(t, dir, false, "", nil, "infer", "--checkpoint", "pics", "--no-mlflow"); r.code != 2 || !strings.Contains(r.err, "no model file") || !strings.Contains(r.err, "there is checkpoints/old/best_model.pth") {
		t.Errorf("a folder without a model: %+v", r)
	}
}

// A checkpoint of a cluster needs one.
func TestInferNamesStoredCheckpoints(t *testing.T) {
	seer(t)
	for _, args := range [][]string{{"--checkpoint", "s-k3v9q2ma/3"}, {"--local", "--checkpoint", "s-k3v9q2ma/3"}} {
		if r := talk(t, t.TempDir(), false, "", nil, append([]string{"infer", "--no-mlflow"}, args...)...); r.code != 2 || !strings.Contains(r.err, "atelier checkpoint pull s-k3v9q2ma 3") {
			t.Errorf("%v: %+v", args, r)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "s-k3v9q2ma"), []byte("a file may be called so"))
	if r := talk(t, dir, false, "", nil, "infer", "--no-mlflow", "--checkpoint", "s-k3v9q2ma"); r.code != 0 {
		t.Errorf("a file: %+v", r)
	}
}

// A class that nobody was taken for is a slip more often than a finding.
func TestMetadataNamesItsClasses(t *testing.T) {
	dir := t.TempDir()
	var lines []string
	for i, class := range []string{"gothic", "tudor", "gothic"} {
		lines = append(lines, fmt.Sprintf(`{"image_path":"%d.jpg","predicted_class":%q,"confidence":0.5,"suspicious":false}`, i, class))
	}
	if err := os.WriteFile(filepath.Join(dir, "m.jsonl"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := run(t, dir, "metadata", "query", "m.jsonl", "--class", "gotik"); r.code != 0 || r.out != "" || !strings.Contains(r.err, "0 of 3 images") ||
		!strings.Contains(r.err, "there are gothic, tudor; did you mean gothic?") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "metadata", "query", "m.jsonl", "--class", "Gothic"); !strings.Contains(r.err, "2 of 3 images") || strings.Contains(r.err, "did you mean") {
		t.Errorf("%+v", r)
	}
}

// The web app does not start with an invalid checkpoint.
func TestServeWantsAModel(t *testing.T) {
	dir := t.TempDir()
	trained := filepath.Join(dir, "checkpoints", "resnet18_ep3", "best_model.pth")
	modelFile(t, trained)
	write(t, filepath.Join(dir, "notes.txt"), []byte("words"))
	if r := run(t, dir, "serve", "--checkpoint", "resnet.pth", "--listen", "127.0.0.1:0"); r.code != 3 || !strings.Contains(r.err, "there is checkpoints/resnet18_ep3/best_model.pth") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "serve", "--checkpoint", "notes.txt", "--listen", "127.0.0.1:0"); r.code != 1 || !strings.Contains(r.err, "not a checkpoint") {
		t.Errorf("%+v", r)
	}
}

// Results of an earlier inference are replaced and named; files of those names
// that a person put there stay.
func TestInferNamesWhatItReplaces(t *testing.T) {
	seer(t)
	dir := t.TempDir()
	results := filepath.Join(dir, "m/results/evaluation_results.json")
	write(t, filepath.Join(dir, "m/best_model.pth"), nil)
	write(t, results, []byte("a person's"))
	args := []string{"infer", "--checkpoint", "m/best_model.pth", "--no-mlflow"}
	r := run(t, dir, args...)
	if b, _ := os.ReadFile(results); r.code != 2 || string(b) != "a person's" || !strings.Contains(r.err, "has evaluation_results.json") || !strings.Contains(r.err, "--overwrite") {
		t.Errorf("%q, %+v", b, r)
	}
	if r := run(t, dir, append(args, "--mode", "explain_single")...); r.code != 0 {
		t.Errorf("a mode that writes no such file: %+v", r)
	}
	os.Remove(filepath.Join(dir, "m/results/inference.log"))
	for _, more := range [][]string{{"--overwrite"}, nil} { // told to; its own
		if r := run(t, dir, append(args, more...)...); r.code != 0 || !strings.Contains(r.err, "replaced evaluation_results.json") {
			t.Errorf("%v: %+v", more, r)
		}
	}
}
