//go:build libtorch

package train

import (
	"fmt"
	"slices"
	"strings"

	"atelier/common/checkpoint"
	"atelier/worker/trainer/model"
	"atelier/worker/trainer/nn"
)

// startFrom lays the weights of a file over the model's drawn ones. A head of
// another class count stays as drawn; what the file lacks or has too much is
// told. A file of another model is the spec's fault.
func (r *run) startFrom(path string) error {
	file, err := checkpoint.OpenState(path)
	if err != nil {
		return refuse(err, "training: weights: %w", err)
	}
	defer file.Close()
	// What else the file says of its model need not make sense: only the weights are taken.
	if said, _ := file.Model(); said.Arch != r.model.Arch && slices.Contains(model.Names(), said.Arch) {
		return badSpec("training: weights: %s is of model %q, the run trains %q", path, said.Arch, r.model.Arch)
	}
	given := file.Tensors
	state, err := r.model.Export(&model.Stage{})
	if err != nil {
		return err
	}
	m := r.match(state, given)
	// A smaller or larger sister has many of the names, with the right shapes.
	if m.found == 0 || len(m.wrong) > 0 || 4*len(m.missing) > len(state) || 4*len(m.unexpected) > len(given) {
		return badSpec("training: weights: %s does not fit model %q: of %d tensors it has %d%s%s%s", path, r.model.Arch,
			len(state), m.found, some("; of another shape", m.wrong), some("; missing", m.missing), some("; unexpected", m.unexpected))
	}
	if err := r.model.Load(state); err != nil {
		return badSpec("training: weights: %s: %w", path, err)
	}
	r.log.Info("weights loaded", "from", path, "tensors", m.found)
	for _, text := range file.Told {
		r.log.Warn(text, "from", path)
	}
	for _, told := range []struct {
		what  string
		names []string
	}{
		{"the head stays as drawn: the file has other classes", m.replaced},
		{"missing in the weights: stay as drawn", m.missing},
		{"unexpected in the weights: left out", m.unexpected},
	} {
		if len(told.names) > 0 {
			r.log.Warn(told.what, "from", path, "names", strings.Join(told.names, " "))
		}
	}
	return nil
}

// match is how a file's tensors and a model's agree.
type match struct {
	found                                int
	replaced, wrong, missing, unexpected []string
}

// match puts what fits of given into state.
func (r *run) match(state, given []checkpoint.Tensor) (m match) {
	named := make(map[string]*checkpoint.Tensor, len(given))
	for i := range given {
		named[given[i].Name] = &given[i]
	}
	for i, e := range r.model.State() {
		t, there := named[e.Name]
		delete(named, e.Name)
		switch {
		case !there && e.Kind == nn.Counter: // files older than PyTorch 0.4.1 have none
		case !there:
			m.missing = append(m.missing, e.Name)
		case slices.Equal(t.Shape, state[i].Shape):
			state[i] = *t
			m.found++
		case strings.HasPrefix(e.Name, r.model.Head+".") && len(t.Shape) == len(state[i].Shape) && slices.Equal(t.Shape[1:], state[i].Shape[1:]):
			m.replaced = append(m.replaced, e.Name)
		default:
			m.wrong = append(m.wrong, fmt.Sprintf("%s %v instead of %v", e.Name, t.Shape, state[i].Shape))
		}
	}
	for _, t := range given {
		if _, left := named[t.Name]; left {
			m.unexpected = append(m.unexpected, t.Name)
		}
	}
	return m
}

// some lists the first few names.
func some(what string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	if n := len(names); n > 3 {
		names = append(slices.Clone(names[:3]), fmt.Sprintf("and %d more", n-3))
	}
	return what + ": " + strings.Join(names, ", ")
}
