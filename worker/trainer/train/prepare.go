//go:build libtorch

package train

import (
	"context"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"atelier/common/kernels"
	"atelier/common/settings"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
	"atelier/worker/trainer/optim"
	"atelier/worker/trainer/optim/schedule"
	"atelier/worker/trainer/torchx"
)

// prepare does everything before the first step.
func (r *run) prepare(ctx context.Context) (err error) {
	if r.settings, err = settings.Parse(r.job.Training, r.job.Params, r.job.BaseDir); err != nil {
		return badSpec("%w", err)
	}
	s := r.settings
	on, err := kernels.Chosen(s.Kernels)
	if err != nil {
		return badSpec("%w", err)
	}
	torchx.UseKernels(on)
	r.log.Info("kernels of our own", "on", on, "instructions", torchx.Instructions())
	if s.Seed >= 0 {
		r.job.Seed = uint64(s.Seed)
	}
	if r.metric = r.job.Metric; r.metric == "" {
		r.metric = "val_loss"
	}
	if !slices.Contains(settings.Metrics, r.metric) {
		return badSpec("objective metric %q is not reported by this trainer; it reports %s", r.metric, strings.Join(settings.Metrics, ", "))
	}
	if r.device, err = device(r.job.Device); err != nil {
		return err
	}
	switch s.Precision {
	case "bf16":
		r.precision = torchx.BF16
	case "fp16":
		if !r.device.CUDA() {
			return badSpec("training: precision fp16 needs a GPU, the run is on %s; take bf16 or fp32", r.device)
		}
		r.precision, r.scaler = torchx.FP16, optim.NewScaler()
	}
	if s.ShardThreads > 0 { // results depend on them, so the slot's do not count
		r.job.Threads = s.ShardThreads
	}
	if r.job.Threads < 1 {
		r.job.Threads = runtime.NumCPU()
	}
	if err := torchx.SetThreads(r.job.Threads); err != nil {
		return err
	}
	if err := torchx.SetDeterministic(true); err != nil {
		return err
	}
	if r.writer, err = openCheckpointWriter(r.job.Dir, r.job.Run, r.job.Group != nil && r.job.Group.Join); err != nil {
		return err
	}
	packed := false
	r.data, err = openData(ctx, s, r.job.CacheDir, r.log, func(text string) {
		packed = true
		if err := r.tellProgress(trainerproto.Event{Message: text}); err != nil {
			r.log.Warn("packing continues", "error", err)
		}
	})
	if err != nil {
		return err
	}
	if packed { // a bar would show the last count of packing until the first batch is through
		r.lastTold = time.Time{}
		if err := r.tellProgress(trainerproto.Event{Message: "images are packed; the first epoch begins"}); err != nil {
			return err
		}
	}
	r.data.device, r.data.seed = r.device, r.job.Seed
	r.data.channelsLast = s.ChannelsLast()

	if r.job.SheetsDir != "" && r.job.Resume == "" {
		if err := r.data.sheets(r.job.SheetsDir, s, SheetImages); err != nil {
			return err
		}
	}
	if err := torchx.Seed(r.job.Seed); err != nil {
		return err
	}
	if r.model, err = model.New(s.Model, model.Options{Classes: len(r.data.classes), Dropout: s.DropoutRate, Freeze: s.FreezeFeatures}); err != nil {
		return err
	}
	if s.Weights != "" && r.job.Resume == "" && !r.joins() {
		if err := r.startFrom(s.Weights); err != nil {
			return err
		}
	}
	if s.FreezeFeatures && s.Weights == "" && r.job.Resume == "" {
		r.log.Warn("freeze_features without weights: the head is trained on features that are drawn at random")
	}
	if err := r.model.Move(r.device, r.data.channelsLast); err != nil {
		return err
	}
	if err := r.fits(); err != nil {
		return err
	}
	if err := r.varies(); err != nil {
		return err
	}
	if err := r.prepareLearning(); err != nil {
		return err
	}
	r.out.digest = r.data.digest
	r.at.Last = progress{BestLoss: math.Inf(1)}
	if r.job.Resume != "" && !r.joins() {
		if r.at.Last, err = r.resume(r.job.Resume); err != nil {
			return err
		}
		r.log.Info("resumed", "epoch", r.at.Last.Epoch, "from", r.job.Resume)
	}
	r.at.Epoch = r.at.Last.Epoch + 1
	if err := r.prepareShards(); err != nil {
		return err
	}
	return r.join(ctx)
}

// device is the one a job names.
func device(name string) (torchx.Device, error) {
	switch name {
	case "":
		name = "cpu"
	case "auto":
		if d := torchx.NewDevice("cuda:0"); torchx.DeviceReady(d) == nil {
			return d, nil
		}
		name = "cpu"
	}
	d := torchx.NewDevice(name)
	if err := torchx.DeviceReady(d); err != nil {
		return d, &Failure{trainerproto.FailedDeviceFault, err}
	}
	return d, nil
}

// prepareLearning makes what moves the weights of a model that is in its
// place: loss, schedule, optimiser, average.
func (r *run) prepareLearning() (err error) {
	s := r.settings
	r.criterion = criterion{smoothing: s.LabelSmoothing}
	if s.ClassWeights == "balanced" {
		r.criterion.share = balanced(r.data.train.Labels(), len(r.data.classes))
		if r.criterion.weights, err = r.tensor(r.criterion.share); err != nil {
			return err
		}
	}
	r.schedule = schedule.Schedule{Kind: s.Schedule, LR: s.LR, Min: s.MinLR, Gamma: s.Gamma, StepEpochs: s.StepEpochs, Epochs: s.Epochs, Warmup: s.WarmupEpochs}
	if r.opt, err = r.optimizer(r.model); err != nil {
		return err
	}
	if s.EMADecay > 0 {
		var all []torchx.Tensor
		for _, e := range r.model.State() {
			if e.Kind != nn.Counter {
				all = append(all, e.Tensor)
			}
		}
		r.average, err = optim.NewAverage(s.EMADecay, all)
	}
	return err
}

// tensor puts numbers on the run's device.
func (r *run) tensor(v []float64) (torchx.Tensor, error) {
	single := make([]float32, len(v))
	for i, x := range v {
		single[i] = float32(x)
	}
	t, err := torchx.FromFloats(single, int64(len(v)))
	if err != nil {
		return t, err
	}
	if err := torchx.Move(t, r.device, false); err != nil {
		torchx.Free(t)
		return torchx.Tensor{}, err
	}
	return t, nil
}

// generators are the random states a run draws from.
func (r *run) generators() []torchx.Device {
	if r.device.CUDA() {
		return []torchx.Device{torchx.CPU, r.device}
	}
	return []torchx.Device{torchx.CPU}
}

// close frees whatever prepare came to.
func (r *run) close() {
	if r.group != nil {
		r.group.Close() // before the memory that others may read
	}
	r.pass.Close()
	r.work.close()
	r.criterion.free()
	r.shards.free()
	if r.average != nil {
		r.average.Free()
	}
	if r.opt != nil {
		r.opt.Free()
	}
	if r.model != nil {
		r.model.Free()
	}
	if r.data != nil {
		r.data.close()
	}
}
