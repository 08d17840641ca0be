// Package hint has what a person can do about a failure. It is the one place
// for such advice (runbook section 7); whoever prints an error asks it. A failure
// of this program is told by its type, one of a run by its exit class. What other
// programs said (libtorch, the kernel, a loader, SerpAPI, a tracking server, a
// trainer here or on a worker) is a text, and told by its words. Where more is
// known than that, as after a training, the advice with numbers stands there.
package hint

import (
	"errors"
	"net"
	"regexp"
	"slices"

	"atelier/common/client"
	"atelier/common/trainerproto"
	"atelier/tuner/data/scrape"
	"atelier/tuner/session"
)

// Case is a class of failure.
type Case struct {
	Name   string
	is     func(error) bool // may be nil
	class  string           // of a session.Failure; "" = of none
	signs  *regexp.Regexp   // of the message; may be nil
	unless *regexp.Regexp   // words that say the advice already
	Advice []string
	whose  bool     // the advice about the address comes first
	begin  []string // more advice where nobody named a cluster
}

// Origin is where a command has the address of its cluster from: what to do about
// one that does not answer depends on it.
type Origin int

const (
	Unknown     Origin = iota
	Default            // nobody gave one
	Flag               // --addr
	Environment        // ATELIER_ADDR
	Recorded           // in the folder of results that is resumed
	Context            // chosen by name
)

// Name is the origin for people.
func (o Origin) Name() string {
	return [...]string{"address", "default address", "--addr", "ATELIER_ADDR", "address recorded with the results", "address of the context"}[o]
}

// where is the advice that depends on the origin.
func (o Origin) where() string {
	return [...]string{
		"name the cluster's coordinators: --addr HOST:PORT,HOST:PORT or ATELIER_ADDR",
		"no address was given, so the default was tried; name the cluster's coordinators: --addr HOST:PORT,HOST:PORT or ATELIER_ADDR",
		"the address comes from --addr: look at host and port; several coordinators: --addr HOST:PORT,HOST:PORT",
		"the address comes from ATELIER_ADDR: unset ATELIER_ADDR where no cluster is meant; --addr HOST:PORT goes before it",
		"the address is the one that the work was begun with; if the cluster has moved: --addr HOST:PORT",
		"the address comes from the context that is in use; --addr HOST:PORT goes before it",
	}[o]
}

// given reports whether a person named the cluster: then there is one somewhere,
// and advice to begin a new one would mislead.
func (o Origin) given() bool { return o > Default }

// Lines of advice that fit some commands only, or only what failed on this
// machine.
const (
	endings     = "files with other endings than processing.extensions are left out (--set processing.extensions=[.jpg,.png])"
	inferBatch  = "reduce the batch: --set processing.batch_size=8, or 1"
	trainBatch  = "reduce the batch: --batch-size 16 or 8, or take smaller images (--set image_size=N)"
	sweepBatch  = "reduce the batch or the images in the spec (training: batch_size, image_size), or give a worker fewer slots"
	serveSize   = "name a smaller model with --checkpoint, or stop what else needs memory"
	fewerImages = "switch CutMix off for a while (--set augmentation.cutmix.enabled=false), or take a smaller model (mobilenet_v2)"
	fromHere    = "paths are as seen from the working folder"
)

// byCommand are the commands that a line fits, by their last word; a line that is
// not in it fits all.
var byCommand = map[string][]string{endings: {"infer"}, inferBatch: {"infer"}, trainBatch: {"train", "tune"}, fewerImages: {"train", "tune"}, serveSize: {"serve"},
	sweepBatch: {"submit", "wait", "watch", "retry", "logs"}}

// unreachable tells a cluster that does not answer by what its addresses did.
func unreachable(kinds ...client.Kind) func(error) bool {
	return func(err error) bool {
		u, ok := errors.AsType[*client.UnreachableError](err)
		return ok && (len(kinds) == 0 || slices.ContainsFunc(u.Found, func(f client.Finding) bool { return slices.Contains(kinds, f.Kind) }))
	}
}

// noSuchHost tells addresses none of which DNS knows.
func noSuchHost(err error) bool {
	u, ok := errors.AsType[*client.UnreachableError](err)
	return ok && len(u.Found) > 0 && !slices.ContainsFunc(u.Found, func(f client.Finding) bool {
		dns, unknown := errors.AsType[*net.DNSError](f.Err)
		return !unknown || !dns.IsNotFound
	})
}

func is[E error](err error) bool { _, ok := errors.AsType[E](err); return ok }

func signs(expr string) *regexp.Regexp { return regexp.MustCompile(`(?i)` + expr) }

// cases, the most telling first; a message gets the advice of the first that fits.
var cases = []Case{
	{Name: "no space left", signs: signs(`no space left|disk quota exceeded`), class: trainerproto.FailedDiskFull, Advice: []string{
		"make room; packed images are only a cache and may be deleted (~/.cache/atelier/packs, or the folder of --cache)",
		"a sweep's checkpoints have a budget: keep in its spec, atelier checkpoint list SWEEP"}},
	{Name: "out of GPU memory", signs: signs(`cuda[^\n]*out of memory|out of memory[^\n]*(gpu|cuda)`), Advice: []string{
		inferBatch, trainBatch, fewerImages, sweepBatch, "see what else uses the GPU: nvidia-smi"}},
	{Name: "killed", signs: signs(`killed from outside|signal: killed`), Advice: []string{
		"dmesg | tail shows whether the system ended it for want of memory; if it did:", inferBatch, trainBatch, sweepBatch, serveSize}},
	{Name: "out of memory", class: trainerproto.FailedOutOfMemory, signs: signs(`out of memory|can't allocate memory|cannot allocate memory|bad_alloc`), Advice: []string{
		"the machine's memory did not suffice", inferBatch, trainBatch, fewerImages, sweepBatch, serveSize}},
	{Name: "GPU", class: trainerproto.FailedDeviceFault, signs: signs(`no kernel image|cuda (driver|error)|cuda is not|no cuda|cublas|cudnn`), Advice: []string{
		"train on the CPU for now: --set device=cpu; look at the GPU with nvidia-smi and atelier worker list"}},
	{Name: "missing library", signs: signs(`cannot open shared object|libcgotorch|libtorch[^\n]*not found`), Advice: []string{
		"the trainer needs libtorch: make trainer builds it and lists what is missing; both files belong into bin/"}},
	{Name: "classes differ", signs: signs(`classes differ|not? classes of the model|outputs[^\n]*classes|classes, but|not the classes`), Advice: []string{
		"train, validation and test want the same class folders: atelier data info FOLDER shows them, atelier data split makes them",
		"a checkpoint knows the classes it was trained on and answers for those alone"}},
	{Name: "broken images", signs: signs(`no usable image|truncated: the file ends|not an image`), Advice: []string{
		"atelier data cleanup FOLDER --dry-run lists what does not decode; without --dry-run it moves that into a quarantine"}},
	{Name: "no images", signs: signs(`no images|has no class folders|there are no files in subfolders`), Advice: []string{
		"atelier data info FOLDER shows what is in a folder", fromHere, endings}},
	{Name: "no such checkpoint", signs: signs(`(checkpoint\b|best_model|final_model|\.pth|\.safetensors)[^\n]*(no such file|does not exist|is not there|not found|there is no)|(no such file|does not exist|there is no)[^\n;]*(\.pth|\.safetensors|checkpoint\b)`), Advice: []string{
		fromHere, "models of trainings here: ls checkpoints/*/best_model.pth",
		"a sweep's stored models: atelier checkpoint list SWEEP, then atelier checkpoint pull SWEEP"}},
	{Name: "no such folder", signs: signs(`(image folder|folder|clean up)[^\n]*(does not exist|no such file)`), unless: signs(`data synth`), Advice: []string{
		fromHere, "atelier data synth FOLDER draws a data set, atelier data split IMAGES FOLDER makes one of your images"}},
	{Name: "no key", is: is[scrape.KeyError], Advice: []string{
		"keys: https://serpapi.com/manage-api-key; then export SERPAPI_API_KEY=..., or --key-file FILE with a file of mode 0600",
		"no key is needed for images you have (atelier data cleanup, split) or for drawn ones (atelier data synth)"}},
	{Name: "quota", is: func(err error) bool { return errors.Is(err, scrape.ErrNoQuota) }, signs: signs(`answered 429|hourly`), Advice: []string{
		"what was downloaded is kept and listed in scrape.jsonl: the same command continues where this one ended",
		"--dry-run prints how many searches a download would take"}},
	{Name: "port in use", signs: signs(`address already in use`), Advice: []string{
		"another program listens there: choose another port, or see which program it is: ss -ltnp",
		"it may be an atelier that was started before and still runs: ss -ltnp shows its process id, kill PID ends it"}},
	{Name: "tracking server", signs: signs(`(mlflow|tracking)[^\n]*(refused|no such host|timeout|unreachable|does not answer|deadline|answered \d)`), Advice: []string{
		"is the server up? mlflow server --port 5000, then --set mlflow.tracking_uri=http://127.0.0.1:5000",
		"without a server: --set mlflow.tracking_uri=mlruns writes files, --no-mlflow tracks nothing; trainings wait for neither"}},
	{Name: "no leader", is: unreachable(client.NoLeader), Advice: []string{
		"more than half of a cluster's coordinators have to run: start the missing ones again, each on the data folder it had",
		"atelier cluster status shows what each of them answers; if their disks are lost: atelier-coordinator recover --help"}},
	{Name: "no such host", is: noSuchHost, whose: true, Advice: []string{
		"the host's name is misspelt, or this machine's DNS does not know it: getent hosts NAME"}},
	{Name: "frozen coordinator", is: unreachable(client.Unresponsive, client.Slow), Advice: []string{
		"that process is stopped, starved or waits for its disk (ps: state T or D), or another program listens there; the cluster continues without it while most of the others run",
		"name the others with --addr HOST:PORT,HOST:PORT or ATELIER_ADDR"}},
	{Name: "no coordinator", is: func(err error) bool { return unreachable()(err) && !unreachable(client.Unwilling)(err) }, whose: true, Advice: []string{
		"if the coordinator was stopped, start it again on its data folder: atelier-coordinator --data DIR"}, begin: []string{
		"where there never was a cluster: atelier-coordinator --bootstrap --data run/c1",
		"without a cluster: atelier train, tune and infer run on this machine when no address is given"}},
	{Name: "permission", signs: signs(`permission denied|read-only file system`), Advice: []string{
		"write elsewhere (--out, --output-dir, --cache), or give this user the right: ls -ld shows who has it"}},
}

// For is what to do about an error of a command, by its last word ("infer");
// empty where nothing is known. Advice that fits other commands only, or this
// machine where a worker failed, is left out. origin is where the command has the
// address of its cluster from.
func For(err error, origin Origin, command string) []string {
	c := find(err)
	if c == nil {
		return nil
	}
	f, ok := errors.AsType[*session.Failure](err)
	remote := ok && f.Remote
	var fit []string
	for _, line := range c.all(origin) {
		switch only := byCommand[line]; {
		case only != nil && !slices.Contains(only, command):
		case line == fromHere && remote:
			fit = append(fit, "it failed on a worker: paths are as that machine sees them (atelier trial show SWEEP 1 has its name)")
		default:
			fit = append(fit, line)
		}
	}
	return fit
}

// all is the advice of a case.
func (c *Case) all(origin Origin) (advice []string) {
	if c.whose {
		advice = append(advice, origin.where())
	}
	advice = append(advice, c.Advice...)
	if !origin.given() {
		advice = append(advice, c.begin...)
	}
	return advice
}

// find is the first case that fits, by type, class or words; its order says which advice is the
// most telling.
func find(err error) *Case {
	class, message := "", client.Message(err)
	if f, ok := errors.AsType[*session.Failure](err); ok {
		class = f.Class
	}
	for i := range cases {
		c := &cases[i]
		fits := c.is != nil && c.is(err) || class != "" && c.class == class || c.signs != nil && c.signs.MatchString(message)
		if fits && (c.unless == nil || !c.unless.MatchString(message)) {
			return c
		}
	}
	return nil
}
