// Package image keeps images: what they are called, what is known about them, and their content in a form that mounts.
//
// An image has a record per project (table "images", by project and fingerprint) and content on this node
// (<dir>/images/<fingerprint>/), shared by all projects and all instances:
//
//	image.json       written last; content without it is not there
//	upload.*         what the client sent, for export
//	meta/            metadata.yaml and templates/
//	root.erofs       the root file system, when the form is erofs
//	rootfs/          the root file system, when the form is directory
//	root/            where root.erofs or upload.rootfs (squashfs) is mounted, read-only
//
// The form is chosen once, by a probe: erofs where mkfs.erofs and the kernel have it, since it boots twice as fast as
// squashfs and needs no unpacking at launch; else squashfs as it came; else a directory. An image that is there keeps
// the form that it has. A mount is shared by all instances and outlives the daemon.
//
// An image comes in two steps: [Service.NewUpload] takes the client's bytes into a staging directory while it hashes them;
// [Service.Finish] checks them, makes the mountable form and publishes it by one rename and one transaction. What is cut
// off by a crash is swept by the next [New]. Content goes when no record and no holder ([Service.Hold]: an instance)
// is left; [Service.Recover] looks for content that lost both.
//
// Package image/unified knows the formats.
package image
