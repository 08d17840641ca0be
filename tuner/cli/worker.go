package cli

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"atelier/common/client"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// workerCommands are about the machines that train.
func (e *Env) workerCommands() *ucli.Command {
	return group("worker", "workers and their slots",
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list workers and what their slots do",
			Flags: listFlags(workerStates, "the first `N`; 0 = all"), Action: e.listWorkers}, 0, 0,
			"atelier worker list", "atelier worker list --watch", "atelier worker list --state lost -o name", "atelier worker list -o json | jq '.[].slots[] | select(.state == \"idle\")'"),
		verb(&ucli.Command{Name: "drain", Usage: "free a worker: its trials are saved and move to others, it gets no more", ArgsUsage: "NAME",
			Description: "It gets no further trials until --undo.",
			Flags:       []ucli.Flag{&ucli.BoolFlag{Name: "undo", Usage: "let it work again"}}, Action: e.drainWorker}, 1, 1,
			"atelier worker drain gpu-7", "atelier worker drain gpu-7 --undo"),
	)
}

// cpuOf, memoryOf and gpuOf are the table's words for what a machine does.
func cpuOf(u *trial.Usage) string {
	if u == nil || math.IsNaN(float64(u.CPUPercent)) {
		return "-"
	}
	return fmt.Sprintf("%.0f%% of %d", float64(u.CPUPercent), u.Cores)
}

// memoryOf is the table's word for a machine's memory.
func memoryOf(u *trial.Usage) string {
	if u == nil {
		return "-"
	}
	return usedOf(u.MemoryUsed, u.MemoryTotal)
}

// usedOf is used and total memory; - where the system does not say.
func usedOf(used, total int64) string {
	if used < 0 || total <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f/%.0f GB", float64(used)/1e9, float64(total)/1e9)
}

// gpuOf is the table's word for the GPU of a slot.
func gpuOf(u *trial.Usage, device string) string {
	if u == nil {
		return "-"
	}
	for _, g := range u.GPUs {
		if device != fmt.Sprintf("cuda:%d", g.Index) {
			continue
		}
		words := []string{usedOf(g.MemoryUsed, g.MemoryTotal)}
		for _, w := range []struct {
			v    trial.Number
			unit string
		}{{g.BusyPercent, "%"}, {g.Celsius, " °C"}, {g.Watts, " W"}} {
			if !math.IsNaN(float64(w.v)) {
				words = append(words, fmt.Sprintf("%.0f%s", float64(w.v), w.unit))
			}
		}
		return strings.Join(words, ", ")
	}
	return "-"
}

// workerStates are what a worker can be.
var workerStates = []string{"ready", "draining", "lost"}

// listWorkers prints a row a slot. The leader knows the workers that have spoken to it: right after
// an election some are missing for a heartbeat.
func (e *Env) listWorkers(c *ucli.Context) error {
	states, err := statesOf(c, workerStates)
	if err != nil {
		return err
	}
	api, err := e.lister(c)
	if err != nil {
		return err
	}
	defer api.Close()
	return show(e, c, listing[trial.Worker]{
		name: func(w trial.Worker) string { return w.Name },
		read: func(ctx context.Context) ([]trial.Worker, error) {
			all, err := api.Workers(ctx)
			if len(states) > 0 {
				all = slices.DeleteFunc(all, func(w trial.Worker) bool { return !slices.Contains(states, w.State) })
			}
			return all, err
		},
		// A line that changed is shown alone: it has to name its worker.
		shape: func(all []trial.Worker) table {
			return e.workerTable(all, c.Bool("watch") && (e.screen() == 0 || e.environ("TERM") == "dumb"))
		},
	})
}

// workerTable has a row a slot; what is the worker's is in its first, or in each.
func (e *Env) workerTable(all []trial.Worker, each bool) table {
	gpus := slices.ContainsFunc(all, func(w trial.Worker) bool { return w.Usage != nil && len(w.Usage.GPUs) > 0 })
	t := table{head: []string{"WORKER", "STATE", "CPU", "MEMORY", "SLOT", "DEVICE", "GPU", "DOES", "TRAINERS", "SEEN", "ADDRESS"},
		wide: []string{"ADDRESS", "TRAINERS"}, spare: []string{"DEVICE", "MEMORY", "CPU"}, flex: []string{"NOTE", "GPU", "DOES", "WORKER"},
		moves: []string{"CPU", "MEMORY", "GPU", "SEEN"}}
	for _, w := range all {
		if w.State == "lost" {
			w.Usage = nil // what it did before is not what it does
		}
		lead := []string{w.Name, dash(w.State), cpuOf(w.Usage), memoryOf(w.Usage)}
		rest := []string{dash(strings.Join(w.Trainers, ",")), e.age(w.LastSeenMS), w.Address}
		if len(w.Slots) == 0 {
			t.rows = append(t.rows, append(append(lead, "-", "-", "-", "-"), rest...))
		}
		for _, s := range w.Slots {
			does := s.State
			if s.Trial > 0 {
				does = fmt.Sprintf("trial %d of %s", s.Trial, s.Sweep)
				if s.Member > 0 {
					does += fmt.Sprintf(", member %d", s.Member)
				}
			}
			t.rows = append(t.rows, append(append(append([]string{}, lead...), s.Name, s.Device, gpuOf(w.Usage, s.Device), dash(does)), rest...))
			if !each {
				lead, rest = []string{"", "", "", ""}, []string{"", "", ""}
			}
		}
	}
	if slices.ContainsFunc(all, func(w trial.Worker) bool { return w.Note != "" }) {
		t.head = append(t.head, "NOTE")
		at := 0
		for _, w := range all {
			for i := range max(len(w.Slots), 1) {
				note := ""
				if i == 0 {
					note = w.Note
				}
				t.rows[at] = append(t.rows[at], note)
				at++
			}
		}
	}
	// Most clusters on a laptop have none: the column would be dashes.
	if !gpus {
		t.head = slices.Delete(t.head, 6, 7)
		for i := range t.rows {
			t.rows[i] = slices.Delete(t.rows[i], 6, 7)
		}
	}
	return t
}

// drainWorker lets a worker get no more trials, until --undo; it outlasts restarts of worker and
// leader.
func (e *Env) drainWorker(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	name := c.Args().First()
	if err := api.Drain(c.Context, client.NewRequestID(), name, c.Bool("undo")); err != nil {
		return err
	}
	if c.Bool("undo") {
		e.say("worker %s accepts work again", name)
	} else {
		e.say("worker %s is draining", name)
	}
	return nil
}
