package train

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// rateLimit bounds a timing: a person waits for it.
const rateLimit = 20 * time.Second

// Rate times a few training steps of an architecture on this machine, on numbers
// in memory, and returns images per second. It is a rough figure: decoding,
// augmentation and other programs are not in it.
func Rate(ctx context.Context, trainer, model, device string, size, threads int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, rateLimit)
	defer cancel()
	out, err := ask(ctx, trainer, nil, "bench", "--model", model, "--device", device, "--size", strconv.Itoa(size), "--threads", strconv.Itoa(threads),
		"--batch", "16", "--steps", "2", "--repeats", "1", "--warmup", "1", "--layout", "auto")
	if err != nil {
		return 0, err
	}
	var r struct {
		Rate float64 `json:"images_per_s"`
	}
	if err := json.Unmarshal(out, &r); err != nil || r.Rate <= 0 {
		return 0, fmt.Errorf("timing %s: answer %.80q", model, out)
	}
	return r.Rate, nil
}
