package api

import "time"

// World describes what this machine sees of the World: GET /1.0/world.
type World struct {
	Machine   string `json:"machine"`   // the name of the machine that answers
	Namespace string `json:"namespace"` // where the World lies in the database
	Deploy    uint64 `json:"deploy"`    // number of the newest deploy; 0: none
	Machines  int    `json:"machines"`  // how many are known
}

// WorldData is a value of the World. Encoding is "" for text and "base64" for what is not UTF-8.
type WorldData struct {
	Value    string `json:"value"`
	Encoding string `json:"encoding,omitempty"`
}

// WorldString is a string of the World.
type WorldString struct {
	Key string `json:"key"`
	WorldData
	Revision int64 `json:"revision,omitempty"` // of the database that wrote it
	Expires  bool  `json:"expires"`            // it goes unless it is set again in time
}

// WorldStringPut sets a string, or this machine's entry in a string map.
type WorldStringPut struct {
	WorldData
	TTL int `json:"ttl,omitempty"` // seconds; 0: it stays
}

// WorldStringMap is a string map of the World: one entry for each machine that made one.
type WorldStringMap struct {
	Key     string               `json:"key"`
	Entries map[string]WorldData `json:"entries"`
}

// WorldChanged says whether a change changed anything: writing what is there already does not.
type WorldChanged struct {
	Changed bool `json:"changed"`
}

// WorldMember is a member of the database.
type WorldMember struct {
	ID         string   `json:"id"` // hexadecimal
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peer_urls"`
	ClientURLs []string `json:"client_urls"`
	Learner    bool     `json:"learner"`
	Leader     bool     `json:"leader"`
}

// WorldMemberEvent is a line of a watch of the members: the first has no Change and no Member.
type WorldMemberEvent struct {
	Time    time.Time     `json:"time"`
	Change  string        `json:"change"`
	Member  *WorldMember  `json:"member,omitempty"`
	Members []WorldMember `json:"members"`
	Error   string        `json:"error,omitempty"` // the members cannot be read for now
}

// WatchLine is one line of an answer to a request with ?watch=true: JSON objects, each on a line of its own, the state at first and after each
// change, empty lines in between to show that the server is there. A line with Error is the last one.
type WatchLine[T any] struct {
	Metadata  T      `json:"metadata"`
	Error     string `json:"error,omitempty"`
	ErrorCode int    `json:"error_code,omitempty"`
}
