package api

import (
	"cmp"
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/notify"
	"atelier/coordinator/state"
	"atelier/tuner/search"
	"atelier/tuner/sweep"
)

// CreateSweep is the one place where a spec is parsed: what the log gets is the checked
// document, with seed and algorithm settled and the results of a warm start copied,
// so that replicas and later versions need neither parser nor other sweeps. A repeat
// under the same request id finds the sweep that was made.
func (s sweeps) CreateSweep(ctx context.Context, req *connect.Request[atelierv1.CreateSweepRequest]) (*connect.Response[atelierv1.CreateSweepResponse], error) {
	m := req.Msg
	file := cmp.Or(m.SpecName, "spec")
	parsed, err := sweep.ParseToRun(file, []byte(m.SpecYaml))
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if why := trial.UnfitName(parsed.Name); why != "" {
		return nil, invalid("%s: name: %.80q: %s", file, parsed.Name, why)
	}
	resp := &atelierv1.CreateSweepResponse{}
	if !parsed.SeedSet {
		var b [8]byte
		s.cfg.Random(b[:])
		parsed.Seed = binary.LittleEndian.Uint64(b[:]) >> 11 // exact in any JSON reader
		resp.Warnings = append(resp.Warnings, fmt.Sprintf("the spec has no seed: %d was drawn; write `seed: %d` to repeat this sweep", parsed.Seed, parsed.Seed))
	}
	if m.Notify != nil {
		if err := notify.CheckURL(m.Notify.Url); err != nil {
			return nil, invalid("notify: %w", err)
		}
	}
	if w := s.offers(parsed); w != "" {
		resp.Warnings = append(resp.Warnings, w)
	}
	// An algorithm left open is settled here, so that no later budget changes it.
	parsed.Algorithm = search.Resolve(parsed.SearchMethod, parsed.Algorithm, search.Problem{Space: &parsed.Space, Maximize: parsed.Objective.Maximize,
		Seed: parsed.Seed, Budget: parsed.Budget.Trials, Parallelism: parsed.Parallelism})
	c := &logv1.CreateSweep{Kind: wire.ToKind(trial.KindOf([]byte(parsed.TrainingJSON))), SpecYaml: m.SpecYaml, SpecJson: spec.Encode(parsed), BaseDir: m.BaseDir, Notify: m.Notify}
	if parsed.WarmStart != "" {
		// Taken here and kept in the new sweep: what becomes of the old one later
		// does not matter.
		_, from, err := s.sweep(ctx, parsed.WarmStart)
		if err != nil {
			return nil, prefixed(file+": warm_start", err)
		}
		warm, warnings, err := warmStart(from, parsed)
		if err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s: warm_start: %w", file, err))
		}
		c.WarmTrials = warm
		resp.Warnings = append(resp.Warnings, warnings...)
	}
	// The id is drawn here, outside the log, and may be taken (40 bits): then another is drawn. A
	// repeat under a known request id never comes to that: it finds the first sweep, whatever id
	// this attempt has.
	for attempt := 0; ; attempt++ {
		c.Id = s.newID()
		res, err := s.write(ctx, &logv1.Command{RequestId: m.RequestId, Op: &logv1.Command_CreateSweep{CreateSweep: c}})
		if errors.Is(err, state.ErrConflict) && attempt < 3 {
			continue // the id is taken
		}
		if err != nil {
			return nil, err
		}
		made, err := find(s.cfg.View(), cmp.Or(res.Sweep, c.Id))
		if err != nil {
			return nil, err
		}
		if made.Seed != parsed.Seed {
			resp.Warnings = nil // a repeat: the first answer's seed counts
		}
		if made.DeletedMS != 0 { // also a repeat
			resp.Warnings = append(resp.Warnings, fmt.Sprintf("sweep %s was made by this request before and is deleted; `atelier sweep undelete %s` takes that back", made.ID, made.ID))
		}
		resp.Sweep = made.Proto(s.now())
		return connect.NewResponse(resp), nil
	}
}

// newID draws s- and eight letters or digits: short enough to be typed.
func (s *Server) newID() string {
	var b [5]byte
	s.cfg.Random(b[:])
	return "s-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// offers warns when workers are there and none may have the sweep's trials. It is no error, for workers come and
// go; without any worker the person knows.
func (s *Server) offers(spec *spec.Spec) string {
	if spec.Trainer == External {
		return ""
	}
	list, err := s.cfg.Assign.Workers()
	if err != nil || len(list) == 0 {
		return ""
	}
	offered := false
	for _, w := range list {
		for _, t := range w.Trainers {
			if t != spec.Trainer {
				continue
			}
			offered = true
			if carries(w.Labels, spec.Requires) {
				return ""
			}
		}
	}
	if offered {
		return "no worker carries the labels that the spec requires now: trials wait until one does"
	}
	return fmt.Sprintf("no worker offers the trainer %q now: trials wait until one does", spec.Trainer)
}

// carries reports whether a worker has every label that is required.
func carries(labels map[string]string, required []spec.Label) bool {
	for _, l := range required {
		if v, ok := labels[l.Key]; !ok || v != l.Value {
			return false
		}
	}
	return true
}
