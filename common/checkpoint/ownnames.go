package checkpoint

import (
	"fmt"
	"slices"
	"strings"

	"atelier/common/checkpoint/arch"
)

// wrappers are components that DataParallel, DistributedDataParallel, AveragedModel and torch.compile put into
// names: in front of all where the whole model is wrapped, in the middle where a part is.
var wrappers = []string{"module", "_orig_mod"}

// averages is AveragedModel's count of updates beside the model.
const averages = "n_averaged"

// fewStrangers is how many tensors beside a model's may be left out: a loss's weights, a metric's sums.
func fewStrangers(n int) int { return max(4, n/10) }

// ownNames gives tensors the names that the model itself has for them: wrappers are taken out, and so is what stands
// in front of all names of a model, such as Lightning's "model." or "backbone.". A model's names are recognised by
// how those of the architectures known here begin; where none is, only wrappers go. What stands beside the model is
// left out. told says all that.
func ownNames(tensors []Tensor) (own []Tensor, told []string, err error) {
	seen := map[string]string{}
	var out, strangers []string
	for _, t := range tensors {
		if t.Name == averages && t.Numel() == 1 && len(tensors) > 1 {
			strangers = append(strangers, t.Name)
			continue
		}
		parts := strings.Split(t.Name, ".")
		kept := slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return slices.Contains(wrappers, p) })
		if len(kept) < len(parts) && len(kept) > 0 {
			for _, p := range parts {
				if slices.Contains(wrappers, p) && !slices.Contains(out, p+".") {
					out = append(out, p+".")
				}
			}
			name := strings.Join(kept, ".")
			if other, twice := seen[name]; twice {
				return nil, nil, fmt.Errorf("%q and %q are one name without what wraps a model", other, t.Name)
			}
			seen[name] = t.Name
			t.Name = name
		} else if other, twice := seen[t.Name]; twice {
			return nil, nil, fmt.Errorf("%q and %q are one name without what wraps a model", other, t.Name)
		} else {
			seen[t.Name] = t.Name
		}
		own = append(own, t)
	}
	prefix, err := commonPrefix(own)
	if err != nil {
		return nil, nil, err
	}
	if prefix != "" {
		out = append(out, prefix)
		own = slices.DeleteFunc(own, func(t Tensor) bool {
			beside := !strings.HasPrefix(t.Name, prefix)
			if beside {
				strangers = append(strangers, t.Name)
			}
			return beside
		})
		for i := range own {
			own[i].Name = own[i].Name[len(prefix):]
		}
	}
	if len(out) > 0 {
		told = append(told, fmt.Sprintf("taken off the names of the tensors: %s", strings.Join(out, " ")))
	}
	if len(strangers) > 0 {
		told = append(told, "left out, not of the model: "+arch.Some(strangers))
	}
	return own, told, nil
}

// commonPrefix finds what stands in front of a model's names, "" where nothing does or no model is recognised.
func commonPrefix(tensors []Tensor) (string, error) {
	counts := map[string]int{}
	var order []string
	for _, t := range tensors {
		at := 0
		for _, part := range strings.SplitAfter(t.Name, ".") {
			if arch.IsRoot(strings.TrimSuffix(part, ".")) {
				if p := t.Name[:at]; counts[p] == 0 {
					order = append(order, p)
				}
				counts[t.Name[:at]]++
				break
			}
			at += len(part)
		}
	}
	slices.SortStableFunc(order, func(a, b string) int { return counts[b] - counts[a] })
	if len(order) == 0 || counts[order[0]] <= counts[""] {
		return "", nil
	}
	best := order[0]
	if len(order) > 1 && order[1] != "" && 2*counts[order[1]] > counts[best] && len(tensors)-counts[best]-counts[order[1]] <= fewStrangers(len(tensors)) {
		return "", fmt.Errorf("it contains several models, under %q and %q: save the state_dict of one", best, order[1])
	}
	if len(tensors)-counts[best] > fewStrangers(len(tensors)) {
		return "", nil // a part of another kind of model
	}
	return best, nil
}

// fit compares the state with the architecture it says it is of, or the nearest one. Where nothing is missing it
// becomes what torchvision loads.
func (s *State) fit(said string) {
	parts := make([]arch.Part, len(s.Tensors))
	for i, t := range s.Tensors {
		parts[i] = arch.Part{Name: t.Name, Shape: t.Shape}
	}
	m := arch.Nearest(said, parts)
	if m.Arch == "" || len(m.Extra) > fewStrangers(len(parts)) {
		return
	}
	if m.Arch != said && len(m.Missing) > fewStrangers(len(parts)) {
		return // a smaller sister of some other library
	}
	s.Arch, s.Missing = m.Arch, m.Missing
	if len(m.Missing) > 0 {
		return
	}
	if len(m.Extra) > 0 {
		s.Tensors = slices.DeleteFunc(s.Tensors, func(t Tensor) bool { return slices.Contains(m.Extra, t.Name) })
		s.Told = append(s.Told, fmt.Sprintf("left out, not of %s: %s", m.Arch, arch.Some(m.Extra)))
	}
	for i := range s.Tensors {
		if name, ok := m.Renamed[s.Tensors[i].Name]; ok {
			s.Told = append(s.Told, fmt.Sprintf("%s is %s's %s", s.Tensors[i].Name, m.Arch, name))
			s.Tensors[i].Name = name
		}
	}
}
