package state_test

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest/transcript"
	"atelier/coordinator/state"
)

// TestTranscripts plays testdata/*.txt: the commands of a line are those of one log
// entry. For their form see the package transcript. The verbs:
//
//	create S metric= goal=minimize budget=3 parallelism=2 retries=1 objectives='a b' constraints='m<=1' epochs= time= bytes= priority= enqueue=P;P
//	  members=MIN-MAX shards=                                        of create: runs are carried out by groups
//	propose S first=1 count=1 params=P;P source= from=TRIAL@EPOCH seen= reckoned= exhausted=true
//	grant S N worker= request= term= end=EPOCH:VERDICT final=true; expire S N token= cause=
//	report S N token= epoch= metrics=loss:1,acc:0.5; checkpoint S N token= epoch= at= size=9; end S N CLASS token= message=
//	grant S N members='WORKER/SLOT:REQUEST ...'; group S N token= add='W/S:R ...' leave='ID ...' lost='ID:CAUSE ...'
//	view S N token= member= number= members='ID ...' step= pause= reason=; gone S N CLASS token= member= message=
//	verdict S N VERDICT token= reason=; retry S N; resume S N reason=
//	control S ACTION; extend S add= epochs= time=; fail S reason=; enqueue S points=P;P; priority S N; overdue S
//	label S name= add='a b' remove= note=; purge S deleted=
//	alias NAME S N EPOCH token= by=; unalias NAME; aliases            what there are
//	notify S url= on='finished failed'; notified S end= attempt= error= last=true
//	drain|undrain WORKER; member ID raft= api= cluster= folder=; drop ID; nothing
//	token ID NAME ROLE secret= expires=; revoke ID; invite ID ROLE node= secret= expires= uses=; join ID NODE key=; uninvite ID
//	act WHAT ABOUT refused= count=; access; acts           the tables of who may do what, and who did
//	show [S] findings=yes; leaderboard S top=; restart     what is there; from a snapshot
//
// Every command may have request= (its id), clock= (ms), who= (asked for it) and rules=; one that returns a
// token, as= (a name for it in token=); an event of a group's member, member=.
func TestTranscripts(t *testing.T) {
	transcript.Run(t, "testdata/*.txt", func(t *testing.T) func([]transcript.Command) string {
		s := &stage{t: t, m: state.New(), named: map[string]uint64{}}
		t.Cleanup(func() {
			for i, f := range s.views {
				if f.view.Hash() != f.hash {
					t.Errorf("view %d changed after it was taken", i)
				}
			}
		})
		return s.answer
	})
}

// stage is a machine, its next index and the tokens a transcript gave names to.
type stage struct {
	t     *testing.T
	m     *state.Machine
	index uint64
	named map[string]uint64
	views []frozenView
}

type frozenView struct {
	view *state.View
	hash [32]byte
}

func (s *stage) answer(line []transcript.Command) string {
	first := line[0]
	switch first.Verb {
	case "show":
		return s.show(first)
	case "aliases":
		var b strings.Builder
		for _, a := range s.m.View().Aliases() {
			fmt.Fprintf(&b, "  %s:", a.Name)
			for _, p := range a.Places {
				fmt.Fprintf(&b, " %s/%d/%d by %s at %d;", p.Sweep, p.Trial, p.Epoch, p.By, p.SinceMS)
			}
			b.WriteString("\n")
		}
		return b.String()
	case "access":
		return showAccess(s.m.View())
	case "acts":
		return showActs(s.m.View())
	case "leaderboard":
		var b strings.Builder
		sweep, _ := s.m.View().Sweep(first.Word(0))
		for i, tr := range sweep.Leaderboard(int(first.Number("top", 0))) {
			fmt.Fprintf(&b, "  %d. trial %d %g\n", i+1, tr.Number, tr.Value)
		}
		return b.String()
	case "restart":
		before := s.m.View()
		var stream bytes.Buffer
		if _, err := before.WriteTo(&stream); err != nil {
			s.t.Fatal(err)
		}
		s.m = state.New()
		if err := s.m.Restore(&stream); err != nil {
			return "  " + err.Error() + "\n"
		}
		if s.m.View().Hash() != before.Hash() {
			return "  another hash\n"
		}
		return "  same hash\n"
	}
	e := &logv1.Entry{}
	var aliases []string
	for _, c := range line {
		e.Commands = append(e.Commands, s.command(c))
		aliases = append(aliases, c.Args["as"])
	}
	s.index++
	results := s.m.Apply(s.index, e)
	var b strings.Builder
	for i, r := range results {
		if aliases[i] != "" {
			s.named[aliases[i]] = r.Token
		}
		fmt.Fprintf(&b, "  %s", word(r.Outcome))
		if r.Err != nil {
			fmt.Fprintf(&b, ": %v", r.Err)
		}
		if r.Token != 0 {
			fmt.Fprintf(&b, " token=%s trial=%d", s.tokenName(r.Token), r.Trial)
		}
		if len(r.Members) > 0 {
			fmt.Fprintf(&b, " members=%v", r.Members)
		}
		for _, e := range r.Events {
			fmt.Fprintf(&b, " [%s %s", word(e.Outcome), word(e.Verdict))
			if e.Message != "" {
				fmt.Fprintf(&b, ": %s", e.Message)
			}
			b.WriteString("]")
		}
		for _, c := range r.Changes {
			fmt.Fprintf(&b, " | %s", c.Kind)
			if c.Trial != 0 {
				fmt.Fprintf(&b, " %d", c.Trial)
			}
			if c.Member != 0 {
				fmt.Fprintf(&b, "#%d", c.Member)
			}
			if c.Location != "" {
				fmt.Fprintf(&b, " (%s of %s)", c.Location, c.Worker)
			}
			if c.Index != s.index {
				s.t.Errorf("change %v of entry %d", c, s.index)
			}
		}
		b.WriteString("\n")
	}
	v := s.m.View()
	s.views = append(s.views, frozenView{v, v.Hash()})
	return b.String()
}

func (s *stage) tokenName(token uint64) string {
	return fmt.Sprintf("%d.%d", token/state.MaxCommands, token%state.MaxCommands)
}

func (s *stage) command(said transcript.Command) *logv1.Command {
	args, number := said.Args, said.Number
	token := func() uint64 {
		if t, ok := s.named[args["token"]]; ok {
			return t
		}
		return uint64(number("token", 0))
	}
	id, at := said.Word(0), int64(0)
	if !slices.Contains([]string{"control", "alias", "token", "invite", "join", "act"}, said.Verb) {
		at = said.WordNumber(1)
	}
	c := &logv1.Command{TimeMs: number("clock", int64(s.index+1)*1000), RequestId: args["request"], By: args["who"], Rules: uint32(number("rules", state.Rules))}
	event := func(e *atelierv1.RunEvent) {
		e.SweepId, e.Trial, e.Token, e.Member = id, at, token(), int32(number("member", 0))
		c.Op = &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{e}}}
	}
	switch said.Verb {
	case "create":
		objective := func(metric string) *atelierv1.Objective {
			return wire.ToObjective(trial.Objective{Metric: metric, Maximize: args["goal"] == "maximize"})
		}
		c.Op = &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: id, Name: args["name"], SpecYaml: "name: " + args["name"], Seed: uint64(number("seed", 0)),
			Objective: objective(args["metric"]), BudgetTrials: number("budget", 3), Parallelism: number("parallelism", 2), MaxRetries: int32(number("retries", 1)),
			BudgetEpochs: number("epochs", 0), BudgetMs: number("time", 0), CheckpointBytes: number("bytes", 0), Priority: int32(number("priority", 0)), StoppingJson: args["stopping"]}}
		create := c.Op.(*logv1.Command_CreateSweep).CreateSweep
		if points, ok := args["enqueue"]; ok {
			create.EnqueuedJson = strings.Split(points, ";")
		}
		for _, text := range strings.Fields(args["constraints"]) {
			metric, bound, _ := strings.Cut(text, "<=")
			v, err := strconv.ParseFloat(bound, 64)
			if err != nil {
				said.Fatalf("%v", err)
			}
			create.Constraints = append(create.Constraints, &atelierv1.Constraint{Metric: metric, HasMax: true, Max: v})
		}
		for _, text := range strings.Fields(args["objectives"]) {
			create.Objectives = append(create.Objectives, objective(text))
		}
		if text, ok := args["members"]; ok {
			sp := &spec.Spec{Parallelism: create.Parallelism, MaxRetries: create.MaxRetries, Objectives: []trial.Objective{wire.Objective(create.Objective)}, StoppingJSON: create.StoppingJson,
				Budget: spec.Budget{Trials: create.BudgetTrials, Epochs: create.BudgetEpochs}, CheckpointBytes: create.CheckpointBytes, Shards: int32(number("shards", 8))}
			if _, err := fmt.Sscanf(text, "%d-%d", &sp.Members.Min, &sp.Members.Max); err != nil {
				said.Fatalf("%v", err)
			}
			create.SpecJson = spec.Encode(sp)
		}
	case "propose":
		p := &logv1.ProposeTrials{Id: id, First: number("first", 1), Exhausted: args["exhausted"] == "true", Seen: number("seen", 0), Budget: number("reckoned", 0)}
		if source, ok := args["source"]; ok {
			p.Source = wire.ToSource(noun(s.t, trial.ParseSource, source))
		}
		if origin, ok := args["from"]; ok {
			o := &atelierv1.Origin{}
			if _, err := fmt.Sscanf(origin, "%d@%d", &o.Trial, &o.Epoch); err != nil {
				said.Fatalf("%v", err)
			}
			p.Origins = []*atelierv1.Origin{o}
		}
		for i := range number("count", 1) {
			p.ParamsJson = append(p.ParamsJson, fmt.Sprintf(`{"x":%d}`, p.First+i))
		}
		if bad, ok := args["params"]; ok {
			p.ParamsJson = strings.Split(bad, ";")
		}
		c.Op = &logv1.Command_ProposeTrials{ProposeTrials: p}
	case "grant":
		c.RequestId = ""
		c.Op = &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: id, Trial: at, Worker: args["worker"], Incarnation: "i1", Slot: "cpu0", Request: args["request"], TermMs: number("term", 0), Final: args["final"] == "true"}}
		if text, ok := args["members"]; ok {
			g := c.GetGrantLease()
			g.Members = members(said, text)
			for i, p := range g.Members {
				p.Id = int32(i + 1)
			}
			if first := g.Members; len(first) > 0 {
				g.Worker, g.Slot, g.Request = first[0].Worker, first[0].Slot, first[0].Request
			}
		}
		if text, ok := args["end"]; ok {
			epoch, what, _ := strings.Cut(text, ":")
			n, err := strconv.ParseInt(epoch, 10, 32)
			if err != nil {
				said.Fatalf("%v", err)
			}
			c.GetGrantLease().End = &logv1.LeaseEnd{Epoch: int32(n), Verdict: wire.ToVerdict(noun(s.t, trial.ParseVerdict, what)), Reason: "epoch " + epoch + " is its last"}
		}
	case "group":
		change := &logv1.ChangeGroup{Id: id, Trial: at, Token: token(), Add: members(said, args["add"]), Leave: ids(said, args["leave"])}
		for _, text := range strings.Fields(args["lost"]) {
			member, cause, _ := strings.Cut(text, ":")
			change.Lost = append(change.Lost, &logv1.GroupLoss{Member: ids(said, member)[0], Cause: cause})
		}
		c.RequestId = ""
		c.Op = &logv1.Command_ChangeGroup{ChangeGroup: change}
	case "view":
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_View{View: &atelierv1.GroupView{Number: int32(number("number", 1)), Members: ids(said, args["members"]), Step: number("step", 0), PauseMs: number("pause", 0), Reason: args["reason"]}}})
	case "gone":
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_MemberEnded{MemberEnded: &atelierv1.MemberEnded{Exit: wire.ToExit(noun(s.t, trial.ParseExit, said.Word(2))), Message: args["message"]}}})
	case "expire":
		c.Op = &logv1.Command_ExpireLease{ExpireLease: &logv1.ExpireLease{Id: id, Trial: at, Token: token(), Cause: args["cause"]}}
	case "report":
		r := &atelierv1.Report{Epoch: int32(number("epoch", 0))}
		for _, pair := range strings.Split(args["metrics"], ",") {
			if name, text, ok := strings.Cut(pair, ":"); ok {
				v, err := strconv.ParseFloat(text, 64)
				if err != nil {
					said.Fatalf("%v", err)
				}
				r.Metrics = append(r.Metrics, &atelierv1.Metric{Name: name, Value: v})
			}
		}
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Report{Report: r}})
	case "checkpoint":
		p := &atelierv1.Checkpoint{Epoch: int32(number("epoch", 0)), Location: args["at"], Sha256: "00", Size: number("size", 9)}
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: p}})
	case "end":
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(noun(s.t, trial.ParseExit, said.Word(2))), Message: args["message"]}}})
	case "verdict":
		c.Op = &logv1.Command_SetVerdict{SetVerdict: &logv1.SetVerdict{Id: id, Trial: at, Token: token(), Verdict: wire.ToVerdict(noun(s.t, trial.ParseVerdict, said.Word(2))), Reason: args["reason"]}}
	case "control":
		c.Op = &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: id, Action: wire.ToAction(noun(s.t, trial.ParseAction, said.Word(1))), Force: args["force"] == "true"}}
	case "extend":
		c.Op = &logv1.Command_ExtendSweep{ExtendSweep: &logv1.ExtendSweep{Id: id, AddTrials: number("add", 0), AddEpochs: number("epochs", 0), AddMs: number("time", 0)}}
	case "fail":
		c.Op = &logv1.Command_FailSweep{FailSweep: &logv1.FailSweep{Id: id, Reason: args["reason"]}}
	case "retry":
		c.Op = &logv1.Command_RetryTrial{RetryTrial: &logv1.RetryTrial{Id: id, Trial: at}}
	case "resume":
		c.Op = &logv1.Command_ResumeTrial{ResumeTrial: &logv1.ResumeTrial{Id: id, Trial: at, Reason: args["reason"]}}
	case "enqueue":
		c.Op = &logv1.Command_EnqueueTrials{EnqueueTrials: &logv1.EnqueueTrials{Id: id, ParamsJson: strings.Split(args["points"], ";")}}
	case "priority":
		c.Op = &logv1.Command_PrioritizeSweep{PrioritizeSweep: &logv1.PrioritizeSweep{Id: id, Priority: int32(at)}}
	case "label":
		l := &logv1.LabelSweep{Id: id, AddTags: strings.Fields(args["add"]), RemoveTags: strings.Fields(args["remove"])}
		if name, ok := args["name"]; ok {
			l.Name = &name
		}
		if note, ok := args["note"]; ok {
			l.Note = new(strings.ReplaceAll(note, `\n`, "\n"))
		}
		c.Op = &logv1.Command_LabelSweep{LabelSweep: l}
	case "alias":
		epoch, err := strconv.ParseInt(said.Word(3), 10, 32)
		if err != nil {
			said.Fatalf("%v", err)
		}
		c.Op = &logv1.Command_SetAlias{SetAlias: &logv1.SetAlias{Name: id, SweepId: said.Word(1), Trial: said.WordNumber(2), Epoch: int32(epoch), Token: token(), By: args["by"]}}
	case "unalias":
		c.Op = &logv1.Command_SetAlias{SetAlias: &logv1.SetAlias{Name: id}}
	case "notify":
		n := &logv1.SetNotification{Id: id, Url: args["url"]}
		for _, on := range strings.Fields(args["on"]) {
			n.On = append(n.On, wire.ToSweepStatus(noun(s.t, trial.ParseSweepStatus, on)))
		}
		c.Op = &logv1.Command_SetNotification{SetNotification: n}
	case "notified":
		c.Op = &logv1.Command_RecordNotification{RecordNotification: &logv1.RecordNotification{Id: id, EndMs: number("end", 0), Attempt: int32(number("attempt", 1)), Url: args["url"], Error: args["error"], Last: args["last"] == "true"}}
	case "purge":
		c.Op = &logv1.Command_PurgeSweep{PurgeSweep: &logv1.PurgeSweep{Id: id, DeletedMs: number("deleted", 0)}}
	case "overdue":
		c.Op = &logv1.Command_EndOverdue{EndOverdue: &logv1.EndOverdue{Id: id}}
	case "drain", "undrain":
		c.Op = &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: id, Drain: said.Verb == "drain"}}
	case "member":
		c.Op = &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: id, RaftAddress: args["raft"], ApiAddress: args["api"], ClusterId: args["cluster"], FolderId: args["folder"]}}
	case "drop":
		c.Op = &logv1.Command_DropMember{DropMember: &logv1.DropMember{Id: id}}
	case "token":
		c.Op = &logv1.Command_CreateToken{CreateToken: &logv1.CreateToken{Id: id, Name: said.Word(1), Role: role(said.Word(2)), Sha256: hashed(args["secret"]), ExpiresMs: number("expires", 0)}}
	case "revoke":
		c.Op = &logv1.Command_RevokeToken{RevokeToken: &logv1.RevokeToken{Id: id}}
	case "invite":
		c.Op = &logv1.Command_CreateInvite{CreateInvite: &logv1.CreateInvite{Id: id, Role: role(said.Word(1)), Node: args["node"], Sha256: hashed(args["secret"]), ExpiresMs: number("expires", 100_000), Uses: int32(number("uses", 1))}}
	case "join":
		c.Op = &logv1.Command_ConsumeInvite{ConsumeInvite: &logv1.ConsumeInvite{Id: id, Node: said.Word(1), Key: hashed(args["key"])}}
	case "uninvite":
		c.Op = &logv1.Command_RevokeInvite{RevokeInvite: &logv1.RevokeInvite{Id: id}}
	case "act":
		c.Op = &logv1.Command_RecordAct{RecordAct: &logv1.RecordAct{What: id, About: said.Word(1), Refused: args["refused"], Count: number("count", 0)}}
	case "nothing":
	default:
		said.Fatalf("no such verb")
	}
	return c
}

// members reads 'WORKER/SLOT:REQUEST ...'.
func members(said transcript.Command, text string) (out []*atelierv1.GroupMember) {
	for _, one := range strings.Fields(text) {
		where, request, _ := strings.Cut(one, ":")
		worker, slot, ok := strings.Cut(where, "/")
		if !ok {
			said.Fatalf("member %q", one)
		}
		out = append(out, &atelierv1.GroupMember{Worker: worker, Slot: slot, Incarnation: "i1", Request: request})
	}
	return out
}

// ids reads 'ID ...'.
func ids(said transcript.Command, text string) (out []int32) {
	for _, one := range strings.Fields(text) {
		n, err := strconv.ParseInt(one, 10, 32)
		if err != nil {
			said.Fatalf("%v", err)
		}
		out = append(out, int32(n))
	}
	return out
}

// noun reads a word; "unspecified" is zero.
func noun[T ~int32](t *testing.T, parse func(string) (T, error), word string) T {
	if word == "unspecified" {
		return 0
	}
	v, err := parse(word)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
