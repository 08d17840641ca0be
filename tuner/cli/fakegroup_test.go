package cli_test

import (
	"time"

	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// ofGroups is a sweep whose trials several slots carry out together.
func ofGroups() *v1.Sweep {
	return &v1.Sweep{Id: "s-gggggggg", Kind: v1.Kind_KIND_TRAINING, Name: "wide", Status: wire.ToSweepStatus(trial.SweepRunning), Objective: objective(), SearchMethod: "random", Trainer: "torch",
		BudgetTrials: 8, Parallelism: 4, MaxRetries: 3, CreatedMs: ms(time.Hour), Counts: &v1.SweepCounts{Proposed: 5, Waiting: 2, Running: 3, Runs: 4, Reports: 9},
		Note: "trial 4 needs 4 slots, 3 exist", MembersMin: 2, MembersMax: 4, Shards: 8, Groups: []*v1.GroupSize{{Members: 2, Runs: 1}, {Members: 4, Runs: 2}}}
}

// groupTrial is a trial of it, which lost a member and got another.
func groupTrial() *v1.Trial {
	member := func(id int32, worker, slot string) *v1.GroupMember {
		return &v1.GroupMember{Id: id, Worker: worker, Slot: slot, GrantedMs: ms(time.Minute)}
	}
	leaving := member(4, "w3", "cpu1")
	leaving.Leaving = true
	return &v1.Trial{SweepId: "s-gggggggg", Number: 1, Status: wire.ToStatus(trial.Running), ParamsJson: params3, Epoch: 3, CreatedMs: ms(60 * time.Second), StartedMs: ms(59 * time.Second),
		Runs: []*v1.Run{{Number: 1, Token: 120, Worker: "w2", Slot: "cpu1", StartedMs: ms(59 * time.Second), Group: &v1.RunGroup{Min: 2, Max: 4, Shards: 8, Joined: 5,
			Members: []*v1.GroupMember{member(2, "w2", "cpu1"), member(3, "w3", "cpu0"), leaving, member(5, "w4", "cpu0")},
			Views: []*v1.GroupView{{Number: 1, Members: []int32{1, 2}, Reason: "start", TimeMs: ms(58 * time.Second)},
				{Number: 2, Members: []int32{2}, Step: 41, Reason: "w1/cpu0 was lost", PauseMs: 87, TimeMs: ms(40 * time.Second)},
				{Number: 3, Members: []int32{2, 3, 4}, Step: 1210, Reason: "w3/cpu0, w3/cpu1 joined", PauseMs: 12, TimeMs: ms(20 * time.Second)}},
			Ended: []*v1.GroupEnd{{Member: 1, Worker: "w1", Slot: "cpu0", Exit: wire.ToExit(trial.ExitLost), Message: "no heartbeat for 15s", TimeMs: ms(40 * time.Second)}}}}}}
}

// groupWorker has a member of it.
func groupWorker() *v1.Worker {
	return &v1.Worker{Name: "w3", Address: "10.0.0.3:7610", State: "ready", LastSeenMs: ms(time.Second), Trainers: []string{"torch"}, GroupTrainers: []string{"torch"},
		Slots: []*v1.Slot{{Name: "cpu0", Kind: "cpu", Device: "cpu", Threads: 2, State: "busy", SweepId: "s-gggggggg", Trial: 1, Member: 3,
			Pace: &v1.Pace{StepS: 0.4217, Waiting: 0.123, Slowest: 4, Lag: 0.08}}}}
}
