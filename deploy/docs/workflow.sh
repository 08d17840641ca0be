#!/usr/bin/env bash
# The whole workflow on one machine, as deploy/docs/workflow.md describes it: from a folder of images to trained,
# evaluated, explained and tuned models. Everything lands in $WORK; nothing else is changed.
#
#   deploy/docs/workflow.sh                                  # on drawn house facades, about an hour
#   IMAGES=photos MODELS="vanilla resnet18" EPOCHS=50 deploy/docs/workflow.sh
#
# Settings, all of the environment:
#   ATELIER       the command (bin/atelier)
#   WORK          folder for everything (run/workflow); must be new or empty
#   IMAGES        images, one subfolder per class; empty = drawn
#   CLASSES       classes to ask image search for, where SERPAPI_API_KEY is set; SCRAPE_FLAGS (--dry-run) goes with them
#   MODELS        what to train (vanilla resnet18)
#   EPOCHS IMAGE_SIZE BATCH_SIZE LR   of each training
#   EXPLAIN       mistakes to explain (20)
#   TUNE_FLAGS    what to tune (--quick)
#   MLFLOW        --mlflow or --no-mlflow
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
atelier=$(realpath "${ATELIER:-$here/bin/atelier}")
work=${WORK:-run/workflow}
images=${IMAGES:+$(realpath "$IMAGES")}
models=${MODELS:-vanilla resnet18}
epochs=${EPOCHS:-30}
size=${IMAGE_SIZE:-64}
batch=${BATCH_SIZE:-32}
lr=${LR:-0.001}
track=${MLFLOW:---mlflow}

mkdir -p "$work"
[ -z "$(ls -A "$work")" ] || { echo "workflow: $work is not empty: name another folder with WORK=..." >&2; exit 1; }
cd "$work"
unset ATELIER_ADDR # on this machine

step() { printf '\n== %s\n' "$*" >&2; }

step "1a. Images, one folder per class"
if [ -n "${SERPAPI_API_KEY:-}" ] && [ -n "${CLASSES:-}" ]; then
  flags=()
  for class in $CLASSES; do flags+=(--class "$class"); done
  "$atelier" data scrape images "${flags[@]}" --per-class "${PER_CLASS:-100}" ${SCRAPE_FLAGS:-}
fi
if [ -n "$images" ]; then
  mkdir -p images
  cp -r "$images"/. images/
elif [ -z "$(find images -mindepth 2 -type f 2>/dev/null | head -n 1)" ]; then
  "$atelier" data synth drawn --train "${DRAW:-150}" --validation 0 --test 0 --size 96
  mkdir -p images
  mv drawn/train/* images/
fi

step "1b. Clean up: a report first, then broken files and copies go to images_quarantine"
"$atelier" data cleanup images --dry-run -o json > cleanup.json
"$atelier" data cleanup images

step "1c. Split into train, validation and test, with a look at what came out"
"$atelier" data split images pictures --ratios 0.7,0.15,0.15 --seed 42
"$atelier" data info pictures --sheet pictures.png --overwrite
"$atelier" data info pictures -o json > pictures.json

step "2. Configure"
mkdir -p conf
cat > conf/training_config.yaml <<YAML
data:
  train: pictures/train
  validation: pictures/validation
  test: pictures/test
image_size: $size
batch_size: $batch
lr: $lr
cache_dir: packs
augmentation:
  cutmix:
    enabled: true
mlflow:
  tracking_uri: mlruns
YAML
"$atelier" data pack pictures/train --size "$size" --cache packs

step "3. Train: $models"
for model in $models; do
  "$atelier" train --model "$model" --epochs "$epochs" $track
  last=$model
done
checkpoint=$(ls -d checkpoints/"$last"_ep*)/best_model.pth

step "4. Evaluate $checkpoint"
"$atelier" infer --checkpoint "$checkpoint" --image-dir pictures/test
results=$(dirname "$checkpoint")/results

step "5. Its mistakes, explained"
"$atelier" infer --checkpoint "$checkpoint" --image-dir pictures/test --mode explain_misclassifications \
  --set explain_misclassifications_mode.limit="${EXPLAIN:-20}"

step "6. Production: quality checks, suspicious predictions flagged; then questions to what was kept"
"$atelier" infer --checkpoint "$checkpoint" --image-dir pictures/test --mode production
"$atelier" metadata query "$results/inference_metadata.jsonl" --suspicious
"$atelier" metadata query "$results/inference_metadata.jsonl" --low-confidence 0.7 -o csv > low_confidence.csv

step "7. Tune (6.2), and train the final model with what was found"
set -- $models
"$atelier" tune --model "$1" --data pictures ${TUNE_FLAGS:---quick} $track
tuned=$(ls -d checkpoints_tuning/"$1"/*)
best() { sed -n '/"best_params"/,/}/s/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' "$tuned/tuning_results.json" | head -n 1; }
"$atelier" train --model "$1" --epochs "$epochs" --lr "$(best lr)" --batch-size "$(best batch_size)" --out final $track

step "Done, in $PWD"
cat >&2 <<TEXT
  pictures.png                   what the pictures look like, class by class
  $results/   evaluation, explanations, report
  $tuned/   tuning_results.json, diagnostics_summary.txt, charts
  final/                         the model of the best settings
  mlruns/                        all runs: MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri mlruns
  next: $atelier serve --checkpoint $work/final/best_model.pth
TEXT
