// Package agentproto is what the oci driver and the agent that stays in a running instance (shoal-agent serve) say to each other.
//
// They hold the two ends of a SOCK_SEQPACKET pair; every message is one packet of JSON. The driver sends a [Request] and numbers
// what it starts; the agent sends a [Reply] with that number:
//
//	OpExec   descriptors: token, then stdin, stdout, stderr (none of these three with Terminal)
//	         → Started (with the terminal's master as descriptor), then Exited; or Failed, or Revoked
//	OpFiles  descriptors: token, socket; an SFTP server is started on the socket → Started, then Exited; or Failed, or Revoked
//	OpSignal no answer
//
// # The token
//
// A driver that gets no answer in time must know whether the command was begun, or it would run twice. The token is an eventfd that
// holds one: whoever reads it decides. The agent reads it right before it forks; a driver that has waited long enough reads it to take
// the command back.
//
// The agent lives among the guest's processes and may be replaced by one of them: [ParseReply] takes nothing for granted.
package agentproto

import (
	"encoding/json"
	"fmt"
)

// Bounds of messages in bytes.
const (
	MaxRequest = 32 << 10
	MaxReply   = 1 << 10
	MaxError   = 512 // of Reply.Error
)

// Ops of a [Request].
const (
	OpExec   = "exec"
	OpFiles  = "files"
	OpSignal = "signal"
)

// Request is an order of the driver.
type Request struct {
	Op       string   `json:"op"`
	N        uint64   `json:"n"` // names the command or session from now on; for OpSignal, which one is meant
	Args     []string `json:"args,omitempty"`
	Env      []string `json:"env,omitempty"`
	Cwd      string   `json:"cwd,omitempty"`
	UID      uint32   `json:"uid,omitempty"`
	GID      uint32   `json:"gid,omitempty"`
	Terminal bool     `json:"terminal,omitempty"`
	Width    uint16   `json:"width,omitempty"`
	Height   uint16   `json:"height,omitempty"`
	Signal   int      `json:"signal,omitempty"`
}

// Descriptors returns how many descriptors come with a request.
func (r Request) Descriptors() int {
	switch {
	case r.Op == OpFiles:
		return 2
	case r.Op == OpExec && r.Terminal:
		return 1
	case r.Op == OpExec:
		return 4
	}
	return 0
}

// States of a [Reply].
const (
	Started = "started"
	Exited  = "exited"
	Failed  = "failed"  // not started: see Error
	Revoked = "revoked" // not started: the driver has taken it back
)

// BadCwd is the Error of a command whose working directory cannot be entered.
const BadCwd = "cwd"

// Reply is what becomes of a request.
type Reply struct {
	N     uint64 `json:"n"`
	State string `json:"state"`
	Code  int    `json:"code,omitempty"` // of Exited: 0 to 255, 128+n for a signal; 127 and 126 without Started: not found, not executable
	Error string `json:"error,omitempty"`
}

// ParseRequest reads a request.
func ParseRequest(b []byte) (Request, error) {
	var r Request
	if len(b) > MaxRequest {
		return r, fmt.Errorf("request of %d bytes: at most %d are allowed", len(b), MaxRequest)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("request: %w", err)
	}
	switch r.Op {
	case OpExec:
		if len(r.Args) == 0 || r.Args[0] == "" {
			return r, fmt.Errorf("request %d: the command is empty", r.N)
		}
	case OpSignal:
		if r.Signal < 1 || r.Signal > 64 {
			return r, fmt.Errorf("request %d: signal %d: want 1 to 64", r.N, r.Signal)
		}
	case OpFiles:
	default:
		return r, fmt.Errorf("request %d: unknown order %.20q", r.N, r.Op)
	}
	return r, nil
}

// ParseReply reads a reply, which may come from anybody in the guest.
func ParseReply(b []byte) (Reply, error) {
	var r Reply
	if len(b) > MaxReply {
		return r, fmt.Errorf("reply of %d bytes: at most %d are allowed", len(b), MaxReply)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("reply: %w", err)
	}
	switch {
	case r.State != Started && r.State != Exited && r.State != Failed && r.State != Revoked:
		return r, fmt.Errorf("reply with the unknown state %.20q", r.State)
	case r.Code < 0 || r.Code > 255:
		return r, fmt.Errorf("reply with code %d: want 0 to 255", r.Code)
	case len(r.Error) > MaxError:
		return r, fmt.Errorf("reply with an error of %d bytes: at most %d are allowed", len(r.Error), MaxError)
	}
	return r, nil
}
