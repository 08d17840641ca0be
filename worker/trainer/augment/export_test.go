package augment

import "math/rand/v2"

// Share draws from Beta(alpha, alpha).
func Share(draw *rand.PCG, alpha float64) float64 { return share(draw, alpha) }
