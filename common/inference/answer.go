package inference

import "atelier/common/metadata"

// Answer is what a model says of one image, as the web app and its JSON
// endpoint give it.
type Answer struct {
	Model        Asked            `json:"model"`
	Predictions  []metadata.Share `json:"predictions"` // best first
	Maps         []AnswerMap      `json:"maps"`        // where the model looks for each of the predictions
	Quality      metadata.Quality `json:"quality"`     // of the best class
	Suspicious   bool             `json:"suspicious"`
	Flags        []string         `json:"flags"`
	Reasons      []string         `json:"reasons"`      // Reason of each flag
	Formulas     []string         `json:"formulas"`     // Formulas of the figures of quality
	Scale        []byte           `json:"scale"`        // colours of maps, 256 times red, green, blue, alpha (base64 in JSON)
	Image        []byte           `json:"image"`        // JPEG of the part the model saw (base64 in JSON)
	Milliseconds float64          `json:"milliseconds"` // from the whole request to this answer
}

// Asked says which model answered.
type Asked struct {
	Checkpoint   string   `json:"checkpoint"`
	Architecture string   `json:"architecture"`
	Classes      []string `json:"classes"`
	ImageSize    int      `json:"image_size"`
	Epoch        int      `json:"epoch"`

	Map     metadata.MapSize `json:"map_cells"` // of each of its Grad-CAM maps
	MapNote string           `json:"map_note"`  // metadata.MapSize.Note
}

// AnswerMap is an attention map in [0, 1], row by row from the top, of the
// layer's size; it stretches over the image.
type AnswerMap struct {
	Class  string    `json:"class"`
	Width  int       `json:"width"`
	Height int       `json:"height"`
	Values []float32 `json:"values"`
}
