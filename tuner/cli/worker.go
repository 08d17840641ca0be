package cli

import (
	"fmt"
	"strings"

	atelierv1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
	ucli "github.com/urfave/cli/v2"
)

func (e *Env) workerCommands() *ucli.Command {
	return group("worker", "workers and their slots",
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list workers and what their slots do",
			Flags: []ucli.Flag{outputFlag()}, Action: e.listWorkers}, 0, 0,
			"atelier worker list", "atelier worker list -o json | jq '.[].slots[] | select(.state == \"idle\")'"),
		verb(&ucli.Command{Name: "drain", Usage: "free a worker: its trials checkpoint and move, it gets no more", ArgsUsage: "NAME",
			Description: "What it runs goes on; it gets no further trials until --undo.",
			Flags:       []ucli.Flag{&ucli.BoolFlag{Name: "undo", Usage: "let it work again"}}, Action: e.drainWorker}, 1, 1,
			"atelier worker drain gpu-7", "atelier worker drain gpu-7 --undo"),
	)
}

type slotRecord struct {
	Name        string `json:"name"`
	Kind        string `json:"kind"`
	Device      string `json:"device"`
	Description string `json:"description"`
	Threads     int32  `json:"threads"`
	MemoryBytes int64  `json:"memory_bytes"`
	State       string `json:"state"`
	Sweep       string `json:"sweep"`
	Trial       int64  `json:"trial"`
}

type workerRecord struct {
	Name       string            `json:"name"`
	State      string            `json:"state"`
	Draining   bool              `json:"draining"`
	Address    string            `json:"address"`
	LastSeenMS int64             `json:"last_seen_ms"`
	Version    string            `json:"version"`
	Trainers   []string          `json:"trainers"`
	Labels     map[string]string `json:"labels"` // encoding/json sorts the keys
	Slots      []slotRecord      `json:"slots"`
}

func (e *Env) listWorkers(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	r, err := api.Workers.ListWorkers(c.Context, connect.NewRequest(&atelierv1.ListWorkersRequest{}))
	if err != nil {
		return err
	}
	records := []workerRecord{}
	for _, w := range r.Msg.GetWorkers() {
		x := workerRecord{w.GetName(), w.GetState(), w.GetDraining(), w.GetAddress(), w.GetLastSeenMs(), w.GetVersion(), append([]string{}, w.GetTrainers()...), w.GetLabels(), []slotRecord{}}
		if x.Labels == nil {
			x.Labels = map[string]string{}
		}
		for _, s := range w.GetSlots() {
			x.Slots = append(x.Slots, slotRecord{s.GetName(), s.GetKind(), s.GetDevice(), s.GetDescription(), s.GetThreads(), s.GetMemoryBytes(), s.GetState(), s.GetSweepId(), s.GetTrial()})
		}
		records = append(records, x)
	}
	return e.print(c, records, func() table {
		t := table{head: []string{"WORKER", "STATE", "SLOT", "DEVICE", "DOES", "TRAINERS", "SEEN", "ADDRESS"}}
		for _, w := range records {
			lead := []string{w.Name, dash(w.State)}
			rest := []string{dash(strings.Join(w.Trainers, ",")), e.age(w.LastSeenMS), w.Address}
			if len(w.Slots) == 0 {
				t.rows = append(t.rows, append(append(lead, "-", "-", "-"), rest...))
			}
			for _, s := range w.Slots {
				does := s.State
				if s.Trial > 0 {
					does = fmt.Sprintf("trial %d of %s", s.Trial, s.Sweep)
				}
				t.rows = append(t.rows, append(append(append([]string{}, lead...), s.Name, s.Device, dash(does)), rest...))
				lead, rest = []string{"", ""}, []string{"", "", ""} // said once a worker
			}
		}
		return t
	})
}

func (e *Env) drainWorker(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	name := c.Args().First()
	if _, err := api.Workers.DrainWorker(c.Context, connect.NewRequest(&atelierv1.DrainWorkerRequest{RequestId: requestID(), Name: name, Undo: c.Bool("undo")})); err != nil {
		return err
	}
	if c.Bool("undo") {
		e.say("worker %s takes work again", name)
	} else {
		e.say("worker %s drains", name)
	}
	return nil
}
