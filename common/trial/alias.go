package trial

// Alias is a name that people gave a checkpoint.
type Alias struct {
	Name     string       `json:"name"`
	Places   []AliasPlace `json:"places"`   // newest first; the first is what it names now
	Location Location     `json:"location"` // of the file; empty = the index has it no more
}

// AliasPlace is a checkpoint that an alias names, or named.
type AliasPlace struct {
	Sweep   string `json:"sweep"`
	Trial   int64  `json:"trial"`
	Epoch   int32  `json:"epoch"`
	SHA256  string `json:"sha256"` // hex
	Size    int64  `json:"size"`
	SinceMS int64  `json:"since_ms"`
	By      string `json:"by"` // who said so
	Token   uint64 `json:"-"`  // of the lease that wrote it
}
