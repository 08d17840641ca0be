// Command group measures trainings that several members carry out together: that
// the number of members, and whatever happens to them, changes no bit of the
// result; how long a lost, hung or joining member costs the others; and how fast
// members are beside PyTorch's DistributedDataParallel.
package main

import (
	"embed"
	"errors"
	"os"
	"path/filepath"

	"atelier/deploy/bench/harness"
)

//go:embed peer/*.py
var peer embed.FS

type bench struct {
	*harness.Session
	images string // folder with a subfolder of images per class
	data   string // folder of the drawn and split images, kept
	base   string // another build's programs, "" = none
	quick  bool   // smaller sizes, to see that all works

	// of kills
	faults int
	seed   uint64
	kinds  []string
	// of bits
	models, precisions []string
	size               int
	// of ddp
}

func (b *bench) atelier() string { return filepath.Join(b.Bin, "atelier") }
func (b *bench) trainer() string { return filepath.Join(b.Bin, "atelier-trainer") }

// count is n, or small when quick.
func (b *bench) count(n, small int) int {
	if b.quick {
		return small
	}
	return n
}

func main() {
	harness.Main("group", os.Args[1:], func(s *harness.Session) {
		b := &bench{Session: s}
		s.Scripts = peer
		s.BinFlag()
		s.PythonFlag("PyTorch and torchvision")
		s.RoundsFlag(5, "ddp: trainings of each side; elastic: at most 3")
		s.JournalFlags("build/bench-group.jsonl")
		s.Flags.StringVar(&b.images, "images", "", "bits: `FOLDER` with one subfolder of images per class; drawn ones where it is not given")
		s.Flags.StringVar(&b.data, "data", "build/bench-group-data", "`FOLDER` for drawn and split images; the hashes depend on its path")
		s.Flags.StringVar(&b.base, "base", "", "ddp: `FOLDER` of another build's programs, of before there were groups")
		s.Flags.BoolVar(&b.quick, "quick", false, "small sizes: shows that it works, measures nothing")
		s.Flags.BoolVar(&s.Keep, "keep", false, "keep the scratch folder")
		s.Flags.IntVar(&b.faults, "faults", 200, "kills: how many `FAULTS` in all, at least")
		s.Flags.Uint64Var(&b.seed, "seed", 1, "kills: `SEED` of the order of faults")
		s.Strings(&b.kinds, "kinds", "kills: which faults", faultNames()...)
		s.Strings(&b.models, "models", "bits: architectures", "resnet18", "efficientnet_b0")
		s.Strings(&b.precisions, "precisions", "bits: precisions", "fp32", "bf16")
		s.Flags.IntVar(&b.size, "size", 64, "bits: `PIXELS` of the images")
		s.Check = func() (err error) {
			if b.data, err = filepath.Abs(b.data); err != nil {
				return err
			}
			if b.base != "" {
				b.base, err = filepath.Abs(b.base)
			}
			if b.images != "" && err == nil {
				b.images, err = filepath.Abs(b.images)
			}
			if b.faults < 1 || b.size < 32 {
				err = errors.Join(err, errors.New("-faults must be above 0, -size 32 or more"))
			}
			return errors.Join(err, b.knownKinds())
		}
		s.Measured = func() []string {
			return []string{b.trainer(), filepath.Join(b.Bin, "libcgotorch.so"), b.atelier(), filepath.Join(b.Bin, "atelier-worker"), filepath.Join(b.Bin, "atelier-coordinator")}
		}
		s.Parts = []harness.Part{
			{Name: "bits", What: "SHA-256 of best_model.pth for 1 to 8 members, members that come and go, and a resumed training", Run: b.measureBits, Table: func() string { return bitsTable(s.Journal) }},
			{Name: "kills", What: "faults in trainings on a cluster: hashes, epochs, and the time to the next committed step", Run: b.measureKills, Table: func() string { return killsTable(s.Journal) }},
			{Name: "ddp", What: "images a second beside DistributedDataParallel, and beside a build without groups (-base)", Run: b.measureDDP, Table: func() string { return ddpTable(s.Journal) }},
			{Name: "elastic", What: "1,500 steps with a member killed every 20 s, ours and torchrun's", Run: b.measureElastic, Table: func() string { return elasticTable(s.Journal) }},
			{Name: "hosts", What: "three hosts with 1 Gbit/s between them, and a partition (needs root)", Run: b.measureHosts, Table: func() string { return hostsTable(s.Journal) }},
			{Name: "mixed", What: "40 sweeps whose trials take 1, 2 or 4 slots: use of slots, longest wait of a gang", Run: b.measureMixed, Table: func() string { return mixedTable(s.Journal) }},
		}
	})
}
