package checkpoint

import (
	"fmt"
	"math/big"
)

// checkTree walks the finished value: only public kinds, no cycle, no depth and no total that would trouble
// whoever walks it next.
func checkTree(root Value) error {
	type mark struct {
		visits int64
		depth  int
	}
	seen := map[Value]mark{} // by identity: all keys are pointers
	var visit func(v Value, depth int) (int64, int, error)
	visit = func(v Value, depth int) (int64, int, error) {
		if depth > maxDepth {
			return 0, 0, fmt.Errorf("%w: values are nested deeper than %d, or contain themselves", ErrRefused, maxDepth)
		}
		var children []Value
		switch v := v.(type) {
		case nil, bool, int64, *big.Int, float64, complex128, string, []byte, DType, Size, Device, *Tensor, *foreign:
			return 1, 0, nil
		case *List:
			children = v.Items
		case *Tuple:
			children = v.Items
		case *Set:
			children = v.Items
		case *Dict:
			children = make([]Value, 0, 2*len(v.items)+1)
			for _, it := range v.items {
				children = append(children, it.Key, it.Value)
			}
			if v.Attrs != nil {
				children = append(children, v.Attrs)
			}
		default:
			return 0, 0, fmt.Errorf("%w: a bare %s as a value", ErrRefused, kindOf(v))
		}
		if s, ok := seen[v]; ok {
			if depth+s.depth > maxDepth {
				return 0, 0, fmt.Errorf("%w: values are nested deeper than %d, or contain themselves", ErrRefused, maxDepth)
			}
			return s.visits, s.depth, nil
		}
		total, below := int64(1), 0
		for _, c := range children {
			n, d, err := visit(c, depth+1)
			if err != nil {
				return 0, 0, err
			}
			below = max(below, d+1)
			if total += n; total > maxVisits {
				return 0, 0, fmt.Errorf("%w: more than %d values when shared ones are counted each time", ErrRefused, maxVisits)
			}
		}
		seen[v] = mark{total, below}
		return total, below, nil
	}
	_, _, err := visit(root, 0)
	return err
}
