package group

// Wholes are the levels and indices of a member's greatest whole nodes.
func Wholes(from, to, present int) (list [][2]int) {
	for _, n := range wholes(from, to, present) {
		list = append(list, [2]int{n.level, n.i})
	}
	return list
}
