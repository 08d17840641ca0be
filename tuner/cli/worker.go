package cli

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"atelier/common/client"
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

type gpuRecord struct {
	Index       int32  `json:"index"`
	Name        string `json:"name"`
	BusyPercent num    `json:"busy_percent"`
	MemoryUsed  int64  `json:"memory_used"`
	MemoryTotal int64  `json:"memory_total"`
	Celsius     num    `json:"celsius"`
	Watts       num    `json:"watts"`
	WattsAtMost num    `json:"watts_at_most"`
}

// usageRecord is what a worker's machine does; -1 and NaN cannot be read there.
type usageRecord struct {
	TimeMS      int64       `json:"time_ms"`
	CPUPercent  num         `json:"cpu_percent"`
	Cores       int32       `json:"cores"`
	MemoryUsed  int64       `json:"memory_used"`
	MemoryTotal int64       `json:"memory_total"`
	SwapUsed    int64       `json:"swap_used"`
	SwapTotal   int64       `json:"swap_total"`
	DiskUsed    int64       `json:"disk_used"`
	DiskFree    int64       `json:"disk_free"`
	DiskRead    int64       `json:"disk_read"`
	DiskWritten int64       `json:"disk_written"`
	NetReceived int64       `json:"net_received"`
	NetSent     int64       `json:"net_sent"`
	GPUs        []gpuRecord `json:"gpus"`
}

func usageOf(u *atelierv1.Usage) *usageRecord {
	if u == nil {
		return nil
	}
	r := &usageRecord{u.TimeMs, num(u.CpuPercent), u.Cores, u.MemoryUsed, u.MemoryTotal, u.SwapUsed, u.SwapTotal, u.DiskUsed, u.DiskFree, u.DiskRead, u.DiskWritten, u.NetReceived, u.NetSent, []gpuRecord{}}
	for _, g := range u.Gpus {
		r.GPUs = append(r.GPUs, gpuRecord{g.Index, g.Name, num(g.BusyPercent), g.MemoryUsed, g.MemoryTotal, num(g.Celsius), num(g.Watts), num(g.WattsAtMost)})
	}
	return r
}

// cpu, memory and gpu are the table's words for it.
func (u *usageRecord) cpu() string {
	if u == nil || math.IsNaN(float64(u.CPUPercent)) {
		return "-"
	}
	return fmt.Sprintf("%.0f%% of %d", float64(u.CPUPercent), u.Cores)
}

func (u *usageRecord) memory() string {
	if u == nil {
		return "-"
	}
	return usedOf(u.MemoryUsed, u.MemoryTotal)
}

func usedOf(used, total int64) string {
	if used < 0 || total <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f/%.0f GB", float64(used)/1e9, float64(total)/1e9)
}

func (u *usageRecord) gpu(device string) string {
	if u == nil {
		return "-"
	}
	for _, g := range u.GPUs {
		if device != fmt.Sprintf("cuda:%d", g.Index) {
			continue
		}
		words := []string{usedOf(g.MemoryUsed, g.MemoryTotal)}
		for _, w := range []struct {
			v    num
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

type workerRecord struct {
	Name       string            `json:"name"`
	State      string            `json:"state"`
	Draining   bool              `json:"draining"`
	Address    string            `json:"address"`
	LastSeenMS int64             `json:"last_seen_ms"`
	Version    string            `json:"version"`
	Trainers   []string          `json:"trainers"`
	Labels     map[string]string `json:"labels"` // encoding/json sorts the keys
	Usage      *usageRecord      `json:"usage"`  // null until the worker has read its machine
	Slots      []slotRecord      `json:"slots"`
	Note       string            `json:"note"` // what it lacks
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
		x := workerRecord{w.GetName(), w.GetState(), w.GetDraining(), w.GetAddress(), w.GetLastSeenMs(), w.GetVersion(), append([]string{}, w.GetTrainers()...), w.GetLabels(), usageOf(w.GetUsage()), []slotRecord{}, w.GetNote()}
		if x.Labels == nil {
			x.Labels = map[string]string{}
		}
		for _, s := range w.GetSlots() {
			x.Slots = append(x.Slots, slotRecord{s.GetName(), s.GetKind(), s.GetDevice(), s.GetDescription(), s.GetThreads(), s.GetMemoryBytes(), s.GetState(), s.GetSweepId(), s.GetTrial()})
		}
		records = append(records, x)
	}
	return e.print(c, records, func() table {
		gpus := slices.ContainsFunc(records, func(w workerRecord) bool { return w.Usage != nil && len(w.Usage.GPUs) > 0 })
		t := table{head: []string{"WORKER", "STATE", "CPU", "MEMORY", "SLOT", "DEVICE", "GPU", "DOES", "TRAINERS", "SEEN", "ADDRESS"}}
		for _, w := range records {
			lead := []string{w.Name, dash(w.State), w.Usage.cpu(), w.Usage.memory()}
			rest := []string{dash(strings.Join(w.Trainers, ",")), e.age(w.LastSeenMS), w.Address}
			if len(w.Slots) == 0 {
				t.rows = append(t.rows, append(append(lead, "-", "-", "-", "-"), rest...))
			}
			for _, s := range w.Slots {
				does := s.State
				if s.Trial > 0 {
					does = fmt.Sprintf("trial %d of %s", s.Trial, s.Sweep)
				}
				t.rows = append(t.rows, append(append(append([]string{}, lead...), s.Name, s.Device, w.Usage.gpu(s.Device), dash(does)), rest...))
				lead, rest = []string{"", "", "", ""}, []string{"", "", ""} // said once a worker
			}
		}
		if slices.ContainsFunc(records, func(w workerRecord) bool { return w.Note != "" }) {
			t.head = append(t.head, "NOTE")
			at := 0
			for _, w := range records {
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
		if !gpus {
			t.head = slices.Delete(t.head, 6, 7)
			for i := range t.rows {
				t.rows[i] = slices.Delete(t.rows[i], 6, 7)
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
	if _, err := api.Workers.DrainWorker(c.Context, connect.NewRequest(&atelierv1.DrainWorkerRequest{RequestId: client.NewRequestID(), Name: name, Undo: c.Bool("undo")})); err != nil {
		return err
	}
	if c.Bool("undo") {
		e.say("worker %s takes work again", name)
	} else {
		e.say("worker %s drains", name)
	}
	return nil
}
