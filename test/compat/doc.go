// Package compat drives two clients against the real daemon with the same scripts: lxc 5.0, which nobody here wrote,
// and shoal.
//
// Each script of testdata runs twice, as TestLXC/<script> and TestShoal/<script>, each time against a daemon of its own that
// lives in namespaces of its own (processes, mounts, network) and in a directory of its own. When a script is over, its
// instances are deleted by force, and the world is looked at: a process, a network interface or a control group without a
// record fails the test. Whatever happened, everything goes away with the namespaces.
//
// Scripts are in the language of testscript. $CLIENT is the client; besides the usual commands there are:
//
//	code N cmd…           run and require exit code N
//	retry cmd…            run again and again until it succeeds, for at most 20 seconds
//	tty FILE cmd…         run on a terminal; FILE has lines "expect REGEXP", "send TEXT" (with \r, \x03), "resize WxH" and "detach"
//	inside cmd…           run in the daemon's namespaces
//	daemon start|stop|kill
//	image FILE            write the small image: FILE.meta.tar.gz and FILE.squashfs, and FILE.tar.gz as one
//
// These are tests of ring 2. SHOAL_TEST_IMAGE_DIR may name a directory with a larger image, metadata.tar.xz and
// rootfs.squashfs, whose init is systemd; scripts see it as $BIGIMAGE, and do more where it is set: [bigimage].
package compat
