package train

import (
	"fmt"
	"runtime"
	"strings"

	"atelier/common/nvml"
	"atelier/common/setting"
)

// Machine is what members of a group can compute on.
type Machine struct{ Cores, GPUs int }

// ThisMachine counts cores and GPUs.
func ThisMachine() Machine {
	gpus, err := nvml.List("")
	if err != nil {
		gpus = nil // no driver
	}
	return Machine{runtime.NumCPU(), len(gpus)}
}

// Members is how many trainers a training begins with on this machine.
func (p *Plan) Members() int { return max(1, len(p.devices)) }

// TrainerThreads are the CPU's threads of one trainer.
func (p *Plan) TrainerThreads() int {
	if p.Settings.Shards > 1 {
		return p.Settings.ShardThreads
	}
	return p.Threads
}

// Divide settles how a training whose batches are cut into shards is shared out
// over a machine: how many members there are, on which device each computes and
// with how many threads. What the result depends on becomes a setting of the
// training, so that it is the same when the training is resumed elsewhere, with
// other members. A training of one shard is left as it is.
func (p *Plan) Divide(m Machine) error {
	g := p.Settings.Group()
	if g.Shards == 1 {
		return nil
	}
	if p.resumeEpoch > 0 && p.Config.Get(keyShards).Data == nil {
		p.note("warning: up to epoch %d batches were not cut into shards; from here on each has %d, and the result is another than without members", p.resumeEpoch, g.Shards)
	}
	for _, x := range []struct {
		key   string
		value int
		where string
	}{{keyShards, g.Shards, "for these members"}, {keyShardThreads, 1, "whatever the members, so that the result does not depend on them"}} {
		if v := p.Config.Get(x.key); v.Data == nil {
			if err := p.Config.Set(x.key, int64(x.value), v.Origin, x.where); err != nil {
				return err
			}
		}
	}
	if err := p.settle(); err != nil {
		return err
	}
	if strings.HasPrefix(p.Device, "cuda") || p.Device == "auto" && m.GPUs > 0 {
		return p.overGPUs(g.Min, g.Max, m)
	}
	n := g.Max
	if n > m.Cores {
		n = max(g.Min, m.Cores)
	}
	threads := p.Settings.ShardThreads
	switch {
	case n > m.Cores:
		p.note("warning: %d members on %s: each has a part of a core, which is slower than --members %d", n, cores(m.Cores), m.Cores)
	case n*threads > m.Cores:
		p.note("warning: %s of %s on %s: they wait for one another; --set %s=%d", several(n), ofThreads(threads), cores(m.Cores), keyShardThreads, max(1, m.Cores/n))
	case n*threads < m.Cores && m.Cores/n > threads:
		p.note("%d of %s are used: %s of %s; --set %s=%d uses %d, for another result in the last digits", n*threads, cores(m.Cores), several(n), ofThreads(threads), keyShardThreads, m.Cores/n, m.Cores/n*n)
	case n*threads < m.Cores:
		p.note("%d of %s are used: %s of %s (--members)", n*threads, cores(m.Cores), several(n), ofThreads(threads))
	}
	if n > 1 {
		for range n {
			p.devices = append(p.devices, "cpu")
		}
	}
	return nil
}

// overGPUs gives each member a GPU of its own.
func (p *Plan) overGPUs(least, most int, m Machine) error {
	v := p.Config.Get(keyMembers)
	fail := func(format string, a ...any) error {
		return setting.Faults{{Where: v.Where, Key: "members", Origin: v.Origin, Message: fmt.Sprintf(format, a...)}}
	}
	if strings.HasPrefix(p.Device, "cuda:") {
		if least > 1 {
			return fail("%d members need a GPU each, and device names one (%s): leave device out for all GPUs, or take --set device=cpu", least, p.Device)
		}
		return nil
	}
	if least > m.GPUs {
		return fail("%d members, and this machine has %s: each computes on one of its own; take --members %d, or --set device=cpu", least, gpus(m.GPUs), max(1, m.GPUs))
	}
	n := min(most, m.GPUs)
	if n < most {
		p.note("%s, a GPU each, of up to %d", several(n), most)
	}
	if n > 1 {
		for i := range n {
			p.devices = append(p.devices, fmt.Sprintf("cuda:%d", i))
		}
	}
	return nil
}

func (p *Plan) note(format string, a ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, a...)) }

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func cores(n int) string     { return count(n, "core") }
func gpus(n int) string      { return count(n, "GPU") }
func several(n int) string   { return count(n, "member") }
func ofThreads(n int) string { return count(n, "thread") }
