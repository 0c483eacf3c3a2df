package api

import "encoding/json"

// Response is the envelope of every reply except files, websockets and exports.
type Response struct {
	Type       string          `json:"type"` // sync, async or error
	Status     string          `json:"status"`
	StatusCode int             `json:"status_code"`
	Operation  string          `json:"operation"`
	ErrorCode  int             `json:"error_code"`
	Error      string          `json:"error"`
	Metadata   json.RawMessage `json:"metadata"`
}

// Operation is a background task, a set of websockets or a token.
type Operation struct {
	ID          string              `json:"id" yaml:"id"`
	Class       string              `json:"class" yaml:"class"` // task, websocket or token
	Description string              `json:"description" yaml:"description"`
	CreatedAt   Time                `json:"created_at" yaml:"created_at"`
	UpdatedAt   Time                `json:"updated_at" yaml:"updated_at"`
	Status      string              `json:"status" yaml:"status"`
	StatusCode  StatusCode          `json:"status_code" yaml:"status_code"`
	Resources   map[string][]string `json:"resources" yaml:"resources"` // kind → URLs
	Metadata    map[string]any      `json:"metadata" yaml:"metadata"`
	MayCancel   bool                `json:"may_cancel" yaml:"may_cancel"`
	Err         string              `json:"err" yaml:"err"`
	Location    string              `json:"location" yaml:"location"` // member name, "none" when unclustered
}

// Event is a frame of the events websocket.
type Event struct {
	Type      string          `json:"type" yaml:"type"` // operation, lifecycle or logging
	Timestamp Time            `json:"timestamp" yaml:"timestamp"`
	Metadata  json.RawMessage `json:"metadata" yaml:"metadata"`
	Location  string          `json:"location,omitempty" yaml:"location,omitempty"`
	Project   string          `json:"project,omitempty" yaml:"project,omitempty"`
}

// The event types.
const (
	EventTypeOperation = "operation"
	EventTypeLifecycle = "lifecycle"
	EventTypeLogging   = "logging"
)

// EventLifecycle is the metadata of a lifecycle event.
type EventLifecycle struct {
	Action    string          `json:"action" yaml:"action"` // for example instance-started
	Source    string          `json:"source" yaml:"source"` // URL of the object
	Context   map[string]any  `json:"context,omitempty" yaml:"context,omitempty"`
	Requestor *EventRequestor `json:"requestor,omitempty" yaml:"requestor,omitempty"`
}

// EventRequestor says who caused a lifecycle event.
type EventRequestor struct {
	Username string `json:"username" yaml:"username"`
	Protocol string `json:"protocol" yaml:"protocol"` // unix, tls or cluster
	Address  string `json:"address" yaml:"address"`
}

// EventLogging is the metadata of a logging event.
type EventLogging struct {
	Message string            `json:"message" yaml:"message"`
	Level   string            `json:"level" yaml:"level"`
	Context map[string]string `json:"context" yaml:"context"`
}
