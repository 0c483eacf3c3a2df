package api

// WorldScheduleSpec is what a schedule asks for.
type WorldScheduleSpec struct {
	Strategy string            `json:"strategy"` // round-robin, alphabetical, least-loaded, spread or weighted
	Max      int               `json:"max"`      // at most so many hosts; 0: all
	Hosts    []string          `json:"hosts,omitempty"`
	Exclude  []string          `json:"exclude,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Domain   string            `json:"domain,omitempty"` // label of the failure domain; "": zone
	Margin   float64           `json:"margin,omitempty"` // of load, from which on a chosen host gives way; 0: never
}

// WorldSchedulePut creates or changes a schedule: PUT /1.0/world/scheduler/<name>.
type WorldSchedulePut struct {
	WorldScheduleSpec
	// Revision at which the spec that is changed was written; 0 for a schedule that must not exist, null for no condition.
	Revision *int64 `json:"revision"`
}

// WorldScheduleHost is what a host says about itself when it joins a schedule.
type WorldScheduleHost struct {
	Labels map[string]string `json:"labels,omitempty"`
	Weight int               `json:"weight,omitempty"` // 1 to 1000; 0 means 1
	Load   float64           `json:"load,omitempty"`
}

// WorldScheduleCandidate is a host that takes part in a schedule, and how it stands with it.
type WorldScheduleCandidate struct {
	Host string `json:"host"`
	WorldScheduleHost
	Chosen   bool   `json:"chosen"`
	Reason   string `json:"reason,omitempty"` // why it is not chosen
	Draining bool   `json:"draining"`
	Persist  bool   `json:"persist"` // it stays when its host is not heard of
}

// WorldSchedule is a schedule with who is chosen and who is not: GET /1.0/world/scheduler/<name>.
type WorldSchedule struct {
	Name         string                   `json:"name"`
	Spec         *WorldScheduleSpec       `json:"spec"` // null: it cannot be read, or hosts take part in what nobody specified
	SpecRevision int64                    `json:"spec_revision"`
	Hosts        []string                 `json:"hosts"`       // who is chosen, in the order of the strategy
	Written      int64                    `json:"written"`     // revision at which that was recorded; 0: nothing was computed
	Computer     string                   `json:"computed_by"` // host that computed it
	Candidates   []WorldScheduleCandidate `json:"candidates"`
	Errors       []string                 `json:"errors,omitempty"` // what could not be read
}
