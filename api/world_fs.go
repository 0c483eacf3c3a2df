package api

import "time"

// WorldVolume counts a volume of the shared file system. Bytes is the sum of the sizes of its files, of which Inline stand in inodes; equal content of the rest
// is kept once for all volumes.
type WorldVolume struct {
	Name   string `json:"name"`
	Files  int64  `json:"files"`
	Dirs   int64  `json:"dirs"`
	Links  int64  `json:"links"`
	Bytes  int64  `json:"bytes"`
	Inline int64  `json:"inline"`
}

// WorldVolumesPost creates a volume. Chunk is the size in bytes in which content is cut and shared; 0 leaves it to the server.
type WorldVolumesPost struct {
	Name  string `json:"name"`
	Chunk int64  `json:"chunk,omitempty"`
}

// WorldFS says what the shared file system holds: GET /1.0/world/fs.
type WorldFS struct {
	Volumes []WorldVolume `json:"volumes"`
	Blobs   int64         `json:"blobs"` // pieces of content in the database
	Bytes   int64         `json:"bytes"` // in those
}

// WorldFile describes a file, directory or link of the shared file system.
type WorldFile struct {
	Path     string    `json:"path"`
	Type     string    `json:"type"` // file, directory or symlink
	Mode     string    `json:"mode"` // permission bits, octal
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Target   string    `json:"target,omitempty"` // of a link
	ETag     string    `json:"etag"`             // for If-Match
}

// WorldFilePost makes a directory or a link, or moves what is at the path.
type WorldFilePost struct {
	Action  string `json:"action"`            // mkdir, symlink or rename
	Mode    string `json:"mode,omitempty"`    // of a directory, octal; 0755 when empty
	Parents bool   `json:"parents,omitempty"` // mkdir: also those above; one that exists is no error
	Target  string `json:"target,omitempty"`  // symlink: where it leads; rename: the new path
}

// WorldFilePatch changes a file; what is nil stays.
type WorldFilePatch struct {
	Mode     *string    `json:"mode,omitempty"` // octal
	UID      *int64     `json:"uid,omitempty"`
	GID      *int64     `json:"gid,omitempty"`
	Modified *time.Time `json:"modified,omitempty"`
	Size     *int64     `json:"size,omitempty"` // bytes; what is added is zeros
}

// WorldCollected says what a collection of the shared file system found and did: POST /1.0/world/fs/gc.
type WorldCollected struct {
	Live    int   `json:"live"`    // pieces in use
	Swept   int   `json:"swept"`   // pieces that were deleted
	Bytes   int64 `json:"bytes"`   // in those
	Trees   int   `json:"trees"`   // removed trees that were taken apart to the end
	Volumes int   `json:"volumes"` // deleted volumes that were cleared away
}

// WorldMount is a volume that the daemon has mounted on its machine, read-only.
type WorldMount struct {
	Volume string `json:"volume"`
	Path   string `json:"path"`
}
