package trial

// Worker is a machine's agent as the cluster knows it.
type Worker struct {
	Name       string            `json:"name"`
	State      string            `json:"state"` // ready, draining, lost; empty where the worker itself speaks
	Draining   bool              `json:"draining"`
	Address    string            `json:"address"` // host:port of its file server
	LastSeenMS int64             `json:"last_seen_ms"`
	Version    string            `json:"version"`
	Trainers   []string          `json:"trainers"`
	Labels     map[string]string `json:"labels"`
	Usage      *Usage            `json:"usage"` // nil until the worker has read its machine
	Slots      []Slot            `json:"slots"`
	Note       string            `json:"note"` // for people: what it lacks

	// Those of Trainers whose runs the agent can let others join; the trainer itself is
	// asked when a run starts.
	GroupTrainers []string `json:"group_trainers"`

	Incarnation string `json:"-"` // of its process
}

// Slot is one GPU, or one share of CPU cores, that takes one run at a time.
type Slot struct {
	Name        string `json:"name"`   // gpu0, cpu1
	Kind        string `json:"kind"`   // gpu, cpu
	Device      string `json:"device"` // cuda:0, cpu
	Description string `json:"description"`
	Threads     int32  `json:"threads"`
	MemoryBytes int64  `json:"memory_bytes"`
	State       string `json:"state"` // idle, busy, quarantined
	Sweep       string `json:"sweep"` // what runs there now
	Trial       int64  `json:"trial"`
	Member      int32  `json:"member,omitempty"` // id in the group that carries the trial out; 0 = there is none
	Pace        *Pace  `json:"pace,omitempty"`   // of that group, as this member sees it; nil: none yet
}

// Usage is what a worker's machine does: the newest of its readings. NaN and -1
// are numbers that cannot be read there; sizes are bytes.
type Usage struct {
	TimeMS      int64      `json:"time_ms"`
	CPUPercent  Number     `json:"cpu_percent"` // of all cores
	Cores       int32      `json:"cores"`
	MemoryUsed  int64      `json:"memory_used"`
	MemoryTotal int64      `json:"memory_total"`
	SwapUsed    int64      `json:"swap_used"`
	SwapTotal   int64      `json:"swap_total"`
	DiskUsed    int64      `json:"disk_used"` // of the file system with the worker's data
	DiskFree    int64      `json:"disk_free"`
	DiskRead    int64      `json:"disk_read"` // since the machine's counters began
	DiskWritten int64      `json:"disk_written"`
	NetReceived int64      `json:"net_received"`
	NetSent     int64      `json:"net_sent"`
	GPUs        []GPUUsage `json:"gpus"`
}

// GPUUsage is what one GPU does.
type GPUUsage struct {
	Index       int32  `json:"index"`
	Name        string `json:"name"`
	BusyPercent Number `json:"busy_percent"`
	MemoryUsed  int64  `json:"memory_used"`
	MemoryTotal int64  `json:"memory_total"`
	Celsius     Number `json:"celsius"`
	Watts       Number `json:"watts"`
	WattsAtMost Number `json:"watts_at_most"`
}
