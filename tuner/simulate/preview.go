package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"atelier/common/space"
	"atelier/common/spec"
	"atelier/tuner/pbt"
	"atelier/tuner/search"
	"atelier/tuner/stop"
)

// Preview is what a spec would run, as far as that follows from the spec alone.
type Preview struct {
	Points    uint64 // of the space; 0 where an axis is continuous
	Trials    int64  // at most; 0 = as many as epochs or time allow
	Algorithm string // of bayesian, never auto
	Proposals []Proposal

	// Epochs that one trial trains unless it is stopped, and that all of them train
	// together; 0 where the spec does not say. About is less than Epochs where the
	// stopping rule knows beforehand what it ends.
	TrialEpochs, Epochs, About int64
}

// Proposal is a trial that would be made.
type Proposal struct {
	Trial  int64           `json:"trial"`
	Source string          `json:"source"` // enqueued, search
	Params json.RawMessage `json:"params"`
}

// Look computes the preview of a checked spec. epochs is how far a trial trains
// where no stopping rule ends it, 0 where that is not known or differs. The first
// n trials are those that the cluster would make of the spec's seed: proposals are
// a function of spec, seed and history, and there is no history yet. They are
// fewer where the method waits for results. A warm start, which only a cluster
// knows, is not part of it.
func Look(ctx context.Context, s *spec.Spec, epochs int64, n int) (Preview, error) {
	p := Preview{Trials: s.Budget.Trials, TrialEpochs: epochs}
	if size, finite := s.Space.Size(); finite {
		p.Points = size
		// A grid's budget is settled by the parser; another method ends when its
		// space is used up.
		if p.Trials > 0 && s.Population == nil {
			p.Trials = int64(min(uint64(p.Trials), size))
		}
	}
	if err := p.count(s, epochs); err != nil {
		return p, err
	}
	problem := search.Problem{Space: &s.Space, Maximize: s.Objective.Maximize, Seed: s.Seed, Budget: s.Budget.Trials, Parallelism: s.Parallelism,
		Objectives: s.Objectives, Constraints: s.Constraints}
	p.Algorithm = search.Resolve(s.SearchMethod, s.Algorithm, problem)
	var history []search.Trial
	for _, text := range s.Enqueue {
		if len(history) == n {
			break
		}
		point, err := s.Space.Decode(text)
		if err != nil {
			return p, fmt.Errorf("enqueue[%d]: %w", len(history), err)
		}
		p.add(s, &history, point, "enqueued")
	}
	if len(history) == n {
		return p, nil
	}
	var method search.Method
	var err error
	if s.Population != nil {
		method, err = pbt.New(problem, pbt.Settings(*s.Population))
	} else {
		method, err = search.New(s.SearchMethod, p.Algorithm, problem)
	}
	if err != nil {
		return p, err
	}
	// All are asked for at once: with parallel trials the cluster does the same,
	// and asking one by one proposes the same.
	proposal, err := method.Propose(ctx, history, n-len(history))
	if err != nil {
		return p, err
	}
	for _, point := range proposal.Points {
		p.add(s, &history, point, "search")
	}
	return p, nil
}

// add appends a trial that would be made.
func (p *Preview) add(s *spec.Spec, history *[]search.Trial, point space.Point, source string) {
	number := int64(len(*history)) + 1
	*history = append(*history, search.Trial{Number: number, Point: point})
	p.Proposals = append(p.Proposals, Proposal{number, source, json.RawMessage(s.Space.Encode(point))})
}

// count computes the epochs of all trials together.
func (p *Preview) count(s *spec.Spec, epochs int64) error {
	if s.Population != nil {
		// Trial k is a segment; those of a round are one per member, and the last
		// round may be shorter.
		members, interval, whole := s.Parallelism, int64(s.Population.Interval), int64(s.Population.Epochs)
		p.TrialEpochs = interval
		rounds, rest := p.Trials/members, p.Trials%members
		p.Epochs = members*min(rounds*interval, whole) + rest*max(0, min(interval, whole-rounds*interval))
		p.About = p.Epochs
	} else if epochs > 0 && p.Trials > 0 && p.Trials <= math.MaxInt64/epochs {
		p.Epochs = p.Trials * epochs
		p.About = p.Epochs
		if s.StoppingJSON != "" {
			rule, err := stop.Read(s.StoppingJSON)
			if err != nil {
				return err
			}
			p.About = rule.Expected(p.Trials, epochs)
		}
	}
	if limit := s.Budget.Epochs; limit > 0 {
		if p.Epochs == 0 {
			p.Epochs, p.About = limit, limit
		}
		p.Epochs, p.About = min(p.Epochs, limit), min(p.About, limit)
	}
	return nil
}
