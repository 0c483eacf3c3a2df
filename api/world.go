package api

import (
	"fmt"
	"time"
)

// World describes what this machine sees of the World: GET /1.0/world.
type World struct {
	Machine   string `json:"machine" yaml:"machine"`     // the name of the machine that answers
	Namespace string `json:"namespace" yaml:"namespace"` // where the World lies in the database
	Deploy    uint64 `json:"deploy" yaml:"deploy"`       // number of the newest deploy; 0: none
	Machines  int    `json:"machines" yaml:"machines"`   // how many are known
}

// WorldData is a value of the World. Encoding is "" for text and "base64" for what is not UTF-8.
type WorldData struct {
	Value    string `json:"value" yaml:"value"`
	Encoding string `json:"encoding,omitempty" yaml:"encoding,omitempty"`
}

// WorldString is a string of the World.
type WorldString struct {
	Key       string `json:"key" yaml:"key"`
	WorldData `yaml:",inline"`
	Revision  int64 `json:"revision,omitempty" yaml:"revision,omitempty"` // of the database that wrote it
	Expires   bool  `json:"expires" yaml:"expires"`                       // it goes unless it is set again in time
}

// WorldStringPut sets a string, or this machine's entry in a string map.
type WorldStringPut struct {
	WorldData `yaml:",inline"`
	TTL       int `json:"ttl,omitempty" yaml:"ttl,omitempty"` // seconds; 0: it stays
}

// WorldStringMap is a string map of the World: one entry for each machine that made one.
type WorldStringMap struct {
	Key     string               `json:"key" yaml:"key"`
	Entries map[string]WorldData `json:"entries" yaml:"entries"`
}

// WorldChanged says whether a change changed anything: writing what is there already does not.
type WorldChanged struct {
	Changed bool `json:"changed" yaml:"changed"`
}

// WorldMember is a member of the database.
type WorldMember struct {
	ID         string   `json:"id" yaml:"id"` // hexadecimal
	Name       string   `json:"name" yaml:"name"`
	PeerURLs   []string `json:"peer_urls" yaml:"peer_urls"`
	ClientURLs []string `json:"client_urls" yaml:"client_urls"`
	Learner    bool     `json:"learner" yaml:"learner"`
	Leader     bool     `json:"leader" yaml:"leader"`
}

// WorldMemberEvent is a line of a watch of the members: the first has no Change and no Member.
type WorldMemberEvent struct {
	Time    time.Time     `json:"time" yaml:"time"`
	Change  string        `json:"change" yaml:"change"`
	Member  *WorldMember  `json:"member,omitempty" yaml:"member,omitempty"`
	Members []WorldMember `json:"members" yaml:"members"`
	Error   string        `json:"error,omitempty" yaml:"error,omitempty"` // the members cannot be read for now
}

// WatchLine is one line of an answer to a request with ?watch=true: JSON objects, each on a line of its own, the state at first and after each
// change, empty lines in between to show that the server is there. A line with Error is the last one.
type WatchLine[T any] struct {
	Metadata  T      `json:"metadata" yaml:"metadata"`
	Error     string `json:"error,omitempty" yaml:"error,omitempty"`
	ErrorCode int    `json:"error_code,omitempty" yaml:"error_code,omitempty"`
}

// WorldExport is a resource that one machine shows to others.
type WorldExport struct {
	Kind      string `json:"kind" yaml:"kind"`
	Name      string `json:"name" yaml:"name"`
	From      string `json:"from,omitempty" yaml:"from,omitempty"` // the machine that exports it
	To        string `json:"to,omitempty" yaml:"to,omitempty"`     // the machine that it is for, or "*"
	WorldData `yaml:",inline"`
	Revision  int64 `json:"revision,omitempty" yaml:"revision,omitempty"`
}

// WorldExportsPost exports resources of the daemon's machine.
type WorldExportsPost struct {
	// Replace takes back what the machine exported in the same Set before and is not in the list.
	Replace bool          `json:"replace,omitempty" yaml:"replace,omitempty"`
	Set     string        `json:"set,omitempty" yaml:"set,omitempty"` // with Replace
	Exports []WorldExport `json:"exports" yaml:"exports"`             // From and Revision are ignored
}

// WorldSignature is a signature and the name of its key: "ed25519:" and the public key in hexadecimal.
type WorldSignature struct {
	Key string `json:"key" yaml:"key"`
	Sig string `json:"sig" yaml:"sig"` // base64
}

// WorldDeploy is a deploy without its payload.
type WorldDeploy struct {
	ID         uint64          `json:"id" yaml:"id"`
	Hash       string          `json:"hash" yaml:"hash"`       // what it was made from
	Digest     string          `json:"digest" yaml:"digest"`   // SHA-256 of the record, in which everything before is
	Parent     string          `json:"parent" yaml:"parent"`   // Digest of the deploy before
	Payload    string          `json:"payload" yaml:"payload"` // SHA-256
	Size       int             `json:"size" yaml:"size"`       // of the payload in bytes
	Machine    string          `json:"machine" yaml:"machine"` // that added it
	Created    time.Time       `json:"created" yaml:"created"`
	RollbackOf uint64          `json:"rollback_of,omitempty" yaml:"rollback_of,omitempty"`
	Note       string          `json:"note" yaml:"note"`
	Author     *WorldSignature `json:"author,omitempty" yaml:"author,omitempty"` // of hash and payload
	Signature  *WorldSignature `json:"signature,omitempty" yaml:"signature,omitempty"`
}

// WorldDeploysPost adds a deploy.
type WorldDeploysPost struct {
	WorldData `yaml:",inline"` // the payload
	ID        uint64           `json:"id,omitempty" yaml:"id,omitempty"` // must be the next number; 0: whatever that is
	Hash      string           `json:"hash,omitempty" yaml:"hash,omitempty"`
	PrevHash  string           `json:"prev_hash,omitempty" yaml:"prev_hash,omitempty"` // what the hash before must be
	Note      string           `json:"note,omitempty" yaml:"note,omitempty"`
	// Author is the signature of WorldDeployMessage.
	Author *WorldSignature `json:"author,omitempty" yaml:"author,omitempty"`
	// RollbackOf takes payload, hash and author from an earlier deploy instead.
	RollbackOf uint64 `json:"rollback_of,omitempty" yaml:"rollback_of,omitempty"`
}

// WorldDeployMessage is what the author of a deploy signs: its hash and the SHA-256 of its payload in hexadecimal.
func WorldDeployMessage(hash, payload string) []byte {
	return fmt.Appendf(nil, "shoal deploy content v1\n%q\n%s\n", hash, payload)
}

// WorldDeployStatus is how far a machine is with a deploy: pending, running, done or failed.
type WorldDeployStatus struct {
	Machine string    `json:"machine" yaml:"machine"`
	State   string    `json:"state" yaml:"state"`
	Reason  string    `json:"reason,omitempty" yaml:"reason,omitempty"`
	Since   time.Time `json:"since" yaml:"since"`
}

// WorldPruned says how many deploys were deleted.
type WorldPruned struct {
	Deleted int `json:"deleted" yaml:"deleted"`
}

// WorldMachine is a machine that has announced itself.
type WorldMachine struct {
	Name   string   `json:"name" yaml:"name"`
	URLs   []string `json:"urls" yaml:"urls"`
	Key    string   `json:"key" yaml:"key"`
	Grace  int      `json:"grace" yaml:"grace"` // seconds that its exports outlive it
	Up     bool     `json:"up" yaml:"up"`
	Hidden bool     `json:"hidden" yaml:"hidden"` // it has been away for longer
}
