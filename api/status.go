package api

// StatusCode is the state of an operation or an instance. Codes of 200 and above are final.
type StatusCode int

// Status codes, with LXD's numbers.
const (
	OperationCreated StatusCode = 100
	Started          StatusCode = 101
	Stopped          StatusCode = 102
	Running          StatusCode = 103
	Cancelling       StatusCode = 104
	Pending          StatusCode = 105
	Starting         StatusCode = 106
	Stopping         StatusCode = 107
	Aborting         StatusCode = 108
	Freezing         StatusCode = 109
	Frozen           StatusCode = 110
	Thawed           StatusCode = 111
	Error            StatusCode = 112
	Ready            StatusCode = 113
	Success          StatusCode = 200
	Failure          StatusCode = 400
	Cancelled        StatusCode = 401
)

var statusNames = map[StatusCode]string{
	OperationCreated: "Operation created", Started: "Started", Stopped: "Stopped", Running: "Running",
	Cancelling: "Cancelling", Pending: "Pending", Starting: "Starting", Stopping: "Stopping",
	Aborting: "Aborting", Freezing: "Freezing", Frozen: "Frozen", Thawed: "Thawed", Error: "Error",
	Ready: "Ready", Success: "Success", Failure: "Failure", Cancelled: "Cancelled",
}

// String returns the text that clients show, for example "Running".
func (s StatusCode) String() string { return statusNames[s] }

// IsFinal reports whether the status will not change any more.
func (s StatusCode) IsFinal() bool { return s >= 200 }
