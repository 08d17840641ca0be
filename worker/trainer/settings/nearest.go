package settings

import "strings"

// spoken are names people use for our keys, too far off for edit distance.
var spoken = map[string]string{
	"learning_rate": "lr", "learningrate": "lr", "bs": "batch_size", "arch": "model", "architecture": "model",
	"wd": "weight_decay", "l2": "weight_decay", "early_stopping": "patience", "resolution": "image_size", "size": "image_size",
	"dropout": "dropout_rate", "train": "data.train", "train_dir": "data.train", "val": "data.validation",
	"validation": "data.validation", "data.val": "data.validation", "dtype": "precision", "amp": "precision",
	"memory_format": "layout", "nag": "nesterov", "scheduler": "schedule", "lr_schedule": "schedule", "warmup": "warmup_epochs",
	"step_size": "step_epochs", "lr_step_size": "step_epochs", "smoothing": "label_smoothing", "max_norm": "clip_norm",
	"clip_grad_norm": "clip_norm", "grad_clip": "clip_norm", "ema": "ema_decay", "accumulation": "accumulate",
	"gradient_accumulation_steps": "accumulate", "freeze": "freeze_features", "pretrained": "weights",
	"eta_min": "min_lr", "cutmix": "augmentation.cutmix.enabled", "cutmix_alpha": "augmentation.cutmix.alpha",
}

// Nearest returns the name closest to an unknown one.
func Nearest(unknown string, names []string) string {
	lower := strings.ToLower(unknown)
	if known, ok := spoken[lower]; ok {
		for _, n := range names {
			if n == known {
				return n
			}
		}
	}
	best, least := "", 0
	for _, n := range names {
		// A shared beginning says more than single letters: both ways of counting, added.
		d := distance(lower, n) - 2*shared(lower, n)
		if best == "" || d < least {
			best, least = n, d
		}
	}
	return best
}

func shared(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// distance is Levenshtein's on bytes, with two neighbours in the wrong order
// counted as one slip (Damerau).
func distance(a, b string) int {
	var before []int // the row before last
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
