package op

import (
	"context"
	"io"

	"github.com/shoal-project/shoal/api"
)

// Class is the kind of an operation.
type Class string

// The classes of the REST API.
const (
	Task      Class = "task"
	Websocket Class = "websocket"
	Token     Class = "token"
)

// Spec describes an operation before it starts. Rooms return one from whatever takes time; rest
// (or a scheduled task) hands it to [Registry.Start].
type Spec struct {
	Class       Class // empty means Task
	Project     api.ProjectName
	Description string              // one of LXD's texts, for example "Creating instance"
	Resources   map[string][]string // kind → URLs, for example "instances" → "/1.0/instances/c1"
	Metadata    map[string]any
	Cancellable bool
	// Sockets are the names under which websockets can be connected, for example "0" and "control"; each
	// gets a secret, which appears in the metadata as fds.
	Sockets []string
	// Run does the work. Its context is the operation's own, ended by cancel and by the daemon's
	// stop, never by the request that started it. The error's text becomes the operation's err.
	Run func(ctx context.Context, o Handle) error
}

// Handle is what Run sees of its operation. Safe for concurrent use.
type Handle interface {
	ID() string
	// SetMetadata merges values into the metadata and tells the listeners.
	SetMetadata(map[string]any)
	// Socket waits until the client has connected the named websocket.
	Socket(ctx context.Context, name string) (Socket, error)
}

// Socket is one connected websocket.
//
// Read and Write move binary data; Read returns io.EOF when the peer has sent its end mark or has gone,
// Close sends the end mark and closes. ReadText is for control sockets: one text frame.
type Socket interface {
	io.ReadWriteCloser
	ReadText(ctx context.Context) ([]byte, error)
}
