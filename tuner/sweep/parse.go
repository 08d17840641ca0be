package sweep

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"atelier/common/spec"
	"atelier/tuner/pbt"
	"atelier/tuner/search"
)

const (
	// Bounds that only a mistake passes: they keep a typing error from becoming the state's size.
	maxParallelism = 1 << 16
	maxRetries     = 1000
)

// Parse reads a spec that a person hands in. The error, when there is one, is of
// type Errors and lists every fault, sorted by line; file is the name shown in it.
//
// A reader method that finds a fault records it and goes on with a value that does no harm, so that one look
// finds all of them; whoever builds on what was read asks first whether faults came in between. A spec with
// any fault is never returned.
func Parse(file string, text []byte) (*spec.Spec, error) {
	r := &reader{file: file}
	return r.result(r.parse(text))
}

// ParseNode is Parse of a mapping that was read from a file already, such as a part of
// another document: faults name its lines.
func ParseNode(file string, root *yaml.Node) (*spec.Spec, error) {
	r := &reader{file: file}
	return r.result(r.root(root))
}

// result sorts the faults by their lines: they are found in the order in which keys need one another.
func (r *reader) result(s *spec.Spec) (*spec.Spec, error) {
	if len(r.errs) > 0 {
		// A mapping that is read twice, once for its form and once for the trainer, has each of its faults once.
		seen := map[Error]bool{}
		r.errs = slices.DeleteFunc(r.errs, func(e Error) bool {
			twice := seen[e]
			seen[e] = true
			return twice
		})
		sort.SliceStable(r.errs, func(i, j int) bool { return r.errs[i].Line < r.errs[j].Line })
		return nil, r.errs
	}
	return s, nil
}

// yamlLine is how the YAML library begins a message; the line goes into Error.Line.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parse checks the file as a whole (size, encoding, one document) before anything in it is looked
// at.
func (r *reader) parse(text []byte) *spec.Spec {
	if len(text) > MaxSize {
		r.fail(nil, "", "%d bytes; a spec has at most %d", len(text), MaxSize)
		return nil
	}
	if !utf8.Valid(text) {
		r.fail(nil, "", "not valid UTF-8; save the file as UTF-8 text")
		return nil
	}
	var doc, next yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := decode(dec, &doc); err != nil {
		if errors.Is(err, io.EOF) {
			r.fail(nil, "", "is empty; a spec has at least search_method, objective, budget and space")
			return nil
		}
		e := Error{File: r.file, Message: "not valid YAML: " + yamlLine.ReplaceAllString(err.Error(), "")}
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
			e.Line, _ = strconv.Atoi(m[1])
		}
		r.errs = append(r.errs, e)
		return nil
	}
	// A second document would be ignored without a word, and with it perhaps half of what was
	// meant.
	if err := decode(dec, &next); err == nil {
		r.fail(&next, "", "a second document follows; a file has one spec")
	}
	if len(doc.Content) != 1 {
		r.fail(nil, "", "is empty; a spec has at least search_method, objective, budget and space")
		return nil
	}
	return r.root(doc.Content[0])
}

// root wants a mapping that can be read in one way only (unclear) before any key of it is read.
func (r *reader) root(root *yaml.Node) *spec.Spec {
	root = r.follow(root, "")
	if root == nil || !r.mapping(root, "", "search_method: random") {
		return nil
	}
	r.unclear(root, "", 0)
	return r.spec(root)
}

// decode turns a panic of the YAML library on hostile input into an error.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("the file cannot be read as YAML")
		}
	}()
	return dec.Decode(n)
}

// spec reads the keys in an order of its own, not the file's, since some need others: budget and space need the
// method, stopping and population need training's epochs, enqueued points need the space.
func (r *reader) spec(root *yaml.Node) *spec.Spec {
	s := &spec.Spec{
		Name:         defaultName(r.file),
		Algorithm:    search.Auto,
		Trainer:      DefaultTrainer,
		Parallelism:  DefaultParallelism,
		MaxRetries:   DefaultMaxRetries,
		TrainingJSON: "{}",
	}
	given := map[string]*yaml.Node{} // looked up only: an order of a map must not reach the faults
	for _, e := range r.entriesOf(root, "", children("")) {
		given[e.name] = e.value
	}
	// What is missing is reported at the head of the file. objective, budget and parameters have
	// their own words for it.
	for _, need := range []struct{ key, hint string }{
		{"search_method", strings.Join(searchMethods, ", ")},
		{"space", "a mapping of parameters, such as lr: {type: float, low: 1.0e-5, high: 0.1, log: true}"},
	} {
		if given[need.key] == nil {
			r.fail(root, need.key, "is missing; give %s", need.hint)
		}
	}
	if n := given["name"]; n != nil {
		s.Name = r.name(n)
	}
	if n := given["search_method"]; n != nil {
		s.SearchMethod, _ = r.oneOf(n, "search_method", searchMethods)
	}
	if n := given["algorithm"]; n != nil {
		s.Algorithm, _ = r.oneOf(n, "algorithm", search.Algorithms)
		if s.SearchMethod != "" && s.SearchMethod != search.Bayesian && s.Algorithm != "" && s.Algorithm != search.Auto {
			r.fail(n, "algorithm", "belongs to search_method bayesian, not %s; drop it", s.SearchMethod)
		}
	}
	// The default above was for bayesian; elsewhere the document has no algorithm.
	if s.SearchMethod != search.Bayesian {
		s.Algorithm = ""
	}
	if n := given["seed"]; n != nil {
		s.Seed, s.SeedSet = r.seed(n)
	}
	if n := given["trainer"]; n != nil {
		if t, ok := r.text(n, "trainer"); ok {
			if s.Trainer = t; strings.TrimSpace(t) == "" {
				r.fail(n, "trainer", "is empty; name a trainer that the workers offer, such as torch or sim")
			}
		}
	}
	if n := given["parallelism"]; n != nil {
		s.Parallelism, _ = r.whole(n, "parallelism", 1, maxParallelism)
	}
	if n := given["max_retries"]; n != nil {
		i, _ := r.whole(n, "max_retries", 0, maxRetries)
		s.MaxRetries = int32(i)
	}
	r.goals(root, given["objective"], given["objectives"], s)
	if n := given["constraints"]; n != nil {
		s.Constraints = r.constraints(n)
	}
	if n := given["budget"]; n != nil {
		s.Budget = r.budget(n, s.SearchMethod)
	} else if s.SearchMethod != search.Grid && s.SearchMethod != pbt.Name {
		r.fail(root, "budget", "is missing; give {trials: 40} (grid_search alone may go without)")
	}
	if n := given["space"]; n != nil {
		r.space(n, s)
	}
	if n := given["training"]; n != nil {
		s.TrainingJSON = r.training(n)
	}
	if n := given["stopping"]; n != nil {
		s.StoppingJSON = r.stopping(n, s)
	}
	r.population(root, given, s)
	r.life(given, s)
	if r.toRun {
		r.trains(root, given, s)
	}
	r.group(given, s)
	return s
}

// defaultName names a sweep after its file, and one from standard input plainly.
func defaultName(file string) string {
	base := filepath.Base(file)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	if base == "" || base == "." || base == "-" || base == "/" || !utf8.ValidString(base) {
		return "sweep"
	}
	return base
}

// name takes any scalar: `name: 2024` is a name, though YAML says it is a number.
func (r *reader) name(n *yaml.Node) string {
	name := n.Value
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		r.fail(n, "name", "want text, not %s", shown(n))
		return ""
	}
	switch {
	case strings.TrimSpace(name) == "":
		r.fail(n, "name", "is empty; give the sweep a name or drop the key")
	case utf8.RuneCountInString(name) > 200:
		r.fail(n, "name", "has more than 200 characters")
	case strings.ContainsFunc(name, unicode.IsControl):
		r.fail(n, "name", "has control characters; take them out")
	}
	return name
}

// seed reads all of 64 bits. 0 is a seed like any other; that none was given is told by the second
// result.
func (r *reader) seed(n *yaml.Node) (uint64, bool) {
	var seed uint64
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&seed) != nil || strings.HasPrefix(n.Value, "-") {
		r.fail(n, "seed", "want a whole number from 0 to 18446744073709551615, not %s", shown(n))
		return 0, false
	}
	return seed, true
}
