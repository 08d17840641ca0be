package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the training never saw comes first: the test part of the split that it
// used, although the class folders hide that split from a search. Images that the
// model was trained on are marked, and their evaluation is warned of.
func TestInferOffersTheTestPart(t *testing.T) {
	seer(t)
	jobs := t.TempDir()
	t.Setenv("ATELIER_TEST_JOBS", jobs)
	for name, record := range map[string]string{
		"training": `{"format":1,"base_dir":%q,"values":[{"key":"data.train","value":"photos/train_split/train"},{"key":"data.validation","value":"photos/train_split/validation"},{"key":"data.test","value":"photos/train_split/test"}]}`,
		"tuning":   `{"format":1,"base_dir":%q,"values":{"data.train":"photos/train_split/train","data.validation":"photos/train_split/validation"}}`,
		"nothing":  "",
	} {
		dir := t.TempDir()
		for _, part := range []string{"train", "train_split/train", "train_split/validation", "train_split/test"} {
			for _, class := range []string{"gothic", "tudor"} {
				write(t, filepath.Join(dir, "photos", part, class, "1.jpg"), []byte("a house"))
			}
		}
		results, model := "checkpoints/x", "checkpoints/x/best_model.pth"
		if name == "tuning" {
			results, model = "checkpoints_tuning/x/random", "checkpoints_tuning/x/random/trials/trial_0001/best_model.pth"
		}
		modelFile(t, filepath.Join(dir, model))
		if record != "" {
			write(t, filepath.Join(dir, results, "resume/run.json"), fmt.Appendf(nil, record, dir))
		}
		const test = "photos/train_split/test"
		r := talk(t, dir, true, "\n\n", nil, "infer", "--no-mlflow")
		job, _ := os.ReadFile(filepath.Join(jobs, "job"))
		if r.code != 0 || !strings.Contains(r.err, "1  "+test+"  test images of photos/train_split") || !strings.Contains(string(job), `"image_dir":"`+test+`"`) || strings.Contains(r.err, "warning") {
			t.Errorf("%s: %+v %s", name, r, job)
		}
		if name == "nothing" {
			continue
		}
		if !strings.Contains(r.err, "photos/train  2 images, which the model was trained on") {
			t.Errorf("%s: the training images are not marked:\n%s", name, r.err)
		}
		for _, images := range []string{"photos/train", "photos/train_split", "photos/train_split/train", "photos/train_split/train/tudor"} {
			r := talk(t, dir, false, "", nil, "infer", "--no-mlflow", "--checkpoint", model, "--image-dir", images)
			if r.code != 0 || !strings.Contains(r.err, "warning: "+images+" contains images that the model was trained on") || !strings.Contains(r.err, "test images: --image-dir "+test) {
				t.Errorf("%s: %s: %+v", name, images, r)
			}
		}
		if r := talk(t, dir, false, "", nil, "infer", "--no-mlflow", "--checkpoint", model, "--image-dir", test); r.code != 0 || strings.Contains(r.err, "warning") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
