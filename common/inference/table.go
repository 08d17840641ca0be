package inference

import (
	"strings"

	"atelier/common/dataset"
	"atelier/common/setting"
)

// Table declares every setting of inference: a new one is a row here and a
// field of Settings.
var Table = setting.Table{
	{Name: "mode", Type: setting.OneOf(Modes()...), Default: Evaluate, Help: strings.Join(Modes(), " | "), Flag: "mode", Usage: "`MODE`: " + strings.Join(Modes(), ", ")},
	{Name: "model.checkpoint", Section: "Model and images", Type: setting.Text("a file"), Flag: "checkpoint", Usage: "model `FILE`, such as best_model.pth",
		Help: "best_model.pth of a training; architecture, classes, image size and normalisation are stored in it.\nWhere a cluster is addressed also SWEEP, SWEEP/TRIAL or SWEEP/TRIAL/EPOCH"},
	{Name: "paths.image_path", Type: setting.Text("a file"), Help: "of explain_single", Flag: "image", Usage: "`FILE` for mode explain_single"},
	{Name: "paths.image_dir", Type: setting.Text("a folder"), Default: "architectural_style_images/test", Help: "with one folder per class the true classes are known",
		Flag: "image-dir", Usage: "`DIR` of images; with one folder per class their classes are known"},
	{Name: "paths.output_dir", Type: setting.Text("a folder"), Help: "null = results/ beside the checkpoint", Flag: "output-dir", Usage: "`DIR` for the results (default: results/ beside the checkpoint)"},

	{Name: "processing.limit", Section: "Processing", Type: wanting("a whole number from 1 on, or null for all", setting.Integer(1, 0)), Null: true,
		Help: "look at so many images at most; null = all", Flag: "limit", Usage: "look at the first `N` images only"},
	{Name: "processing.batch_size", Help: "images per batch", Type: setting.Integer(1, 4096), Default: int64(32), Flag: "batch-size", Usage: "`N` images at a time"},
	{Name: "processing.extensions", Help: "files with these endings are images", Type: setting.List("endings with their dot, such as [.jpg]", 0, ending), Default: extensions()},
	{Name: "processing.precision", Type: setting.OneOf("fp32", "bf16", "fp16"), Default: "fp32", Help: "fp32 | bf16 | fp16 (GPU)"},
	{Name: "processing.seed", Type: setting.Unsigned(), Default: int64(42), Help: "of random choices"},

	{Name: "evaluation.metrics.accuracy", Help: "share of images that are classified correctly", Section: "Evaluation", Type: setting.Truth(), Default: true},
	{Name: "evaluation.metrics.per_class_metrics", Help: "precision, recall and F1 of each class", Type: setting.Truth(), Default: true},
	{Name: "evaluation.metrics.confusion_matrix", Help: "which classes are taken for which", Type: setting.Truth(), Default: true},
	{Name: "evaluation.metrics.top_k_accuracy", Help: "share of images whose class is among the k best", Type: setting.Truth(), Default: true},
	{Name: "evaluation.top_k", Help: "the k of top_k_accuracy", Type: setting.Is("a list of whole numbers from 1 on", topK), Default: []any{int64(1), int64(3), int64(5)}},

	{Name: "explain_single_mode.true_class", Section: "Explanation", Type: setting.Is("a class", isText), Null: true, Help: "the image's class, where it is known",
		Flag: "true-class", Usage: "`CLASS` of the image of explain_single"},
	{Name: "explain_misclassifications_mode.limit", Type: setting.Integer(1, 0), Default: int64(20), Help: "at most so many"},
	{Name: "explain_misclassifications_mode.sort_by", Type: setting.OneOf(ByConfidence, AtRandom), Default: ByConfidence, Help: "confidence (the surest mistakes first) | random"},
	{Name: "gradcam.enabled", Help: "compute heat maps", Type: setting.Truth(), Default: true},
	{Name: "gradcam.top_k", Type: setting.Integer(1, 100), Default: int64(5), Help: "classes listed in the fourth panel and in the metadata"},

	{Name: "production_mode.run_evaluation", Section: "Production and quality", Type: setting.Truth(), Default: false, Help: "evaluate first; needs one folder per class"},
	{Name: "production_mode.run_quality_checks", Help: "check the heat maps of all predictions", Type: setting.Truth(), Default: true},
	{Name: "production_mode.generate_report", Help: "write a report of the whole run", Type: setting.Truth(), Default: true},
	{Name: "quality_metrics.enabled", Help: "measure heat maps", Type: setting.Truth(), Default: true},
	{Name: "quality_metrics.flag_suspicious", Help: "flag predictions whose heat map is beyond a threshold", Type: setting.Truth(), Default: true},
	{Name: "quality_metrics.semantics", Type: setting.OneOf(Runbook, Literature), Default: Runbook,
		Help: "runbook: a drop should be large | literature: Average Drop of Grad-CAM++, low is good"},
	{Name: "quality_metrics.thresholds.min_confidence_drop", Type: setting.Within(-100, 100), Default: int64(10), Help: "per cent; runbook: flag a smaller drop"},
	{Name: "quality_metrics.thresholds.max_average_drop", Type: setting.Within(-100, 100), Default: int64(50), Help: "per cent; literature: flag a larger one"},
	{Name: "quality_metrics.thresholds.min_concentration", Type: setting.Within(-1, 1), Default: 0.25, Help: "Gini coefficient of the map"},
	{Name: "quality_metrics.thresholds.max_coverage", Type: setting.Within(-1, 1), Default: 0.75, Help: "share of pixels at half the map's height or more"},
	{Name: "quality_metrics.thresholds.min_coverage", Help: "share of pixels at half the height of the map or more", Type: setting.Within(-1, 1), Default: 0.05},

	{Name: "outputs.gradcam_heatmaps.enabled", Help: "draw heat maps", Section: "Outputs", Type: setting.Truth(), Default: true},
	{Name: "outputs.gradcam_heatmaps.save_suspicious_only", Type: setting.Truth(), Default: false, Help: "where quality is checked: draw flagged predictions only"},
	{Name: "outputs.gradcam_heatmaps.separate_dirs", Type: setting.Truth(), Default: true, Help: "suspicious/*_FLAGGED.png apart from heatmaps/*.png"},
	{Name: "outputs.gradcam_heatmaps.raw", Type: setting.Truth(), Default: false, Help: "also the map as float32 .npy, of the model's image size"},
	{Name: "outputs.class_comparison", Type: setting.Truth(), Default: true, Help: "explain_single: where the model looks for each of the best classes"},
	{Name: "outputs.metadata", Type: setting.Truth(), Default: true, Help: "inference_metadata.jsonl; `atelier metadata query` asks it"},
	{Name: "outputs.predictions", Type: setting.Truth(), Default: true, Help: "mode inference: predictions.csv with every class's share"},
}

func wanting(want string, t setting.Type) setting.Type {
	t.Want = want
	return t
}

func extensions() (out []any) {
	for _, x := range dataset.Extensions {
		out = append(out, x)
	}
	return out
}

func isText(v any) bool { _, ok := v.(string); return ok }

func ending(v any) bool { s, _ := v.(string); return len(s) > 1 && s[0] == '.' }

func topK(v any) bool {
	list, ok := v.([]any)
	for _, x := range list {
		n, whole := x.(int64)
		ok = ok && whole && n >= 1
	}
	return ok
}
