package state

// Bounds on what a command may carry.
const (
	maxName        = 256      // bytes of a worker, slot, request, metric or member name
	maxText        = 1 << 20  // bytes of a spec or of training settings
	maxMessage     = 4096     // bytes of a message or a location; longer messages are cut
	maxParams      = 1 << 16  // bytes of a trial's parameters
	maxPoints      = 16 << 20 // bytes of all points given to a sweep; of its warm start
	maxPriority    = 1000
	maxTime        = 10 * 366 * 86_400_000 // ms of a sweep
	maxBudget      = 100_000_000           // trials of a sweep
	maxParallelism = 100_000
	maxMetrics     = 256       // names in a sweep
	maxReports     = 1_000_000 // of a trial
	maxValues      = 4_000_000 // metric values of a trial
	maxEvents      = 4096      // of a command
	maxMembers     = 1000
	maxGroup       = 256     // members of a run
	maxShards      = 4096    // of a batch
	maxViews       = 32      // of a run that are remembered, and ends of its members
	maxReason      = 256     // bytes of a view's reason and of how a member ended
	maxJoined      = 1 << 20 // members of a run in all
	maxDrained     = 10_000
	maxTokens      = 10_000
	maxTokenName   = 64 // bytes
	maxInvites     = 10_000
	maxUses        = 1000   // of an invitation
	maxActs        = 10_000 // that are listed
	maxDenials     = 2000   // that are listed
	maxCredential  = 32     // bytes of the hash of a run's credential
	maxTag         = 64     // bytes of a tag
	maxTags        = 64     // of a sweep
	maxAliases     = 1000
	maxPlaces      = 20        // of an alias that are remembered
	maxURL         = 2048      // bytes of an address that an end is posted to
	maxNote        = 8192      // bytes of a person's note on a sweep
	maxPurged      = 10_000    // deleted sweeps that are remembered
	maxRuns        = 1000      // of a trial
	maxLosses      = 20        // lost runs that fail a trial
	maxPart        = 256 << 10 // bytes of a part of a restore
	maxStaged      = 2 << 30   // bytes of a restore
	maxIndex       = 1 << 43   // from here on tokens are not exact in JSON's numbers
)
