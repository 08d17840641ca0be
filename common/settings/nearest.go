package settings

import (
	"slices"
	"strings"

	"atelier/common/nearest"
)

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
	"eta_min": "min_lr", "test": "data.test", "test_dir": "data.test", "val_dir": "data.validation", "workers": "num_workers",
	"mean": "normalization.mean", "std": "normalization.std", "cutmix": "augmentation.cutmix.enabled", "cutmix_alpha": "augmentation.cutmix.alpha",
}

// Nearest returns the key closest to an unknown one.
func Nearest(unknown string, keys []string) string {
	if known, ok := spoken[strings.ToLower(unknown)]; ok && slices.Contains(keys, known) {
		return known
	}
	return nearest.Word(unknown, keys)
}
