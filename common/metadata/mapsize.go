package metadata

import "fmt"

// MapSize is the size of a Grad-CAM map in cells: that of the layer it is made
// from, before it is stretched over the image. Zero where none was made.
type MapSize struct {
	Width  int `json:"width"`
	Height int `json:"height"`
}

// LeastMapSide is the fewest cells across and down that a map needs to mean
// something. Below, each cell covers more than a quarter of the image's
// side, so the stretched map is a few blurred squares wherever the model looks,
// and figures of it (concentration, coverage, what the region alone carries)
// are those of the squares.
const LeastMapSide = 4

// Coarse reports whether a map is too small to mean anything.
func (m MapSize) Coarse() bool {
	return m != MapSize{} && min(m.Width, m.Height) < LeastMapSide
}

// Note is a sentence about a coarse map, empty for any other.
func (m MapSize) Note() string {
	if !m.Coarse() {
		return ""
	}
	cells := "cells"
	if m.Width*m.Height == 1 {
		cells = "cell"
	}
	return fmt.Sprintf("map of %d x %d %s: too coarse to mean anything; train with image_size=224", m.Width, m.Height, cells)
}
