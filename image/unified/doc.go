// Package unified knows the image formats of LXD and Incus: what the files are called, what metadata.yaml may say, and
// what a root file system file is by its first bytes.
//
// An image comes in one of two forms. Split: a tar archive with metadata.yaml and templates/, and a second file
// with the root file system (squashfs or tar for containers, a disk for virtual machines). Unified: one tar archive
// with metadata.yaml, templates/ and rootfs/ (or rootfs.img). Everything in them is hostile.
package unified

// Names inside archives.
const (
	MetadataFile = "metadata.yaml"
	TemplatesDir = "templates"
	RootfsDir    = "rootfs"
	RootfsImage  = "rootfs.img"
)

// Limits of what an image may bring, in bytes.
const (
	MaxMetadata = 1 << 20
	MaxTemplate = 1 << 20
)
