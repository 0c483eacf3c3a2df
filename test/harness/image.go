package harness

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// initScript is /sbin/init of the small image. It powers off on SIGPWR, as a container does, asks for an address and says
// so on the console, and reads lines from there. With environment.TICK it counts, into /run/count and on the console.
const initScript = `#!/bin/sh
trap 'echo stopping; poweroff -f' PWR
trap 'reboot -f' INT
hostname > /run/hostname
echo init ready > /dev/console
if [ -e /sys/class/net/eth0 ]; then
	ip link set eth0 up
	udhcpc -q -n -t 20 -T 1 -i eth0 -s /etc/udhcpc.sh >/run/udhcpc.log 2>&1 &
fi
if [ -n "$TICK" ]; then
	(n=0; while :; do n=$((n+1)); echo $n > /run/new; mv /run/new /run/count; echo "tick $n"; sleep 0.1; done) > /dev/console &
fi
while :; do
	if read -r line; then echo "you said $line"; else sleep 1000 & wait $!; fi
done < /dev/console > /dev/console
`

const udhcpcScript = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
echo "nameserver $dns" > /etc/resolv.conf
`

const metadataYAML = `architecture: x86_64
creation_date: 1760000000
properties:
  os: Busybox
  release: tiny
  description: Busybox for tests
templates:
  /etc/hostname:
    when: [create, copy, rename]
    template: hostname.tpl
`

var applets = []string{
	"sh", "cat", "echo", "true", "false", "env", "pwd", "id", "sleep", "reboot", "poweroff", "stty", "ls", "ps", "kill", "mkfifo", "head", "tail", "grep", "ip", "hostname",
	"touch", "dd", "seq", "udhcpc", "nslookup", "wget", "nc", "stat", "mkdir", "ln", "rm", "cp", "test", "[", "wc", "sed", "tr", "yes", "trap", "chmod", "chown", "readlink", "find", "md5sum", "mv",
}

// smallRoot writes the root filesystem of the small image.
func smallRoot(root string) error {
	for _, d := range []string{"bin", "sbin", "etc", "proc", "sys", "dev", "run", "root", "tmp", "usr/bin", "var/log", "srv"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755); err != nil {
		return err
	}
	for _, a := range applets {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", a)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"sbin/init": initScript, "etc/udhcpc.sh": udhcpcScript} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n", "etc/hosts": "127.0.0.1 localhost\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// MakeImage writes prefix.meta.tar.gz, prefix.squashfs, and prefix.tar.gz, the same as one archive.
func MakeImage(t testing.TB, prefix string) {
	t.Helper()
	root := t.TempDir()
	Must(t, smallRoot(root))
	meta := map[string]string{"metadata.yaml": metadataYAML, "templates/hostname.tpl": "{{ container.name }}\n"}
	Must(t, writeArchive(prefix+".meta.tar.gz", meta, ""))
	Must(t, writeArchive(prefix+".tar.gz", meta, root))
	if out, err := exec.Command("mksquashfs", root, prefix+".squashfs", "-all-root", "-comp", "gzip", "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, out)
	}
}

func writeArchive(name string, files map[string]string, root string) error {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for path, text := range files {
		if err := tw.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := tw.Write([]byte(text)); err != nil {
			return err
		}
	}
	if root != "" {
		if err := addTree(tw, root); err != nil {
			return fmt.Errorf("archive %s: %w", root, err)
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if err := gz.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, buf.Bytes(), 0o644)
}

// addTree puts a tree below rootfs/, everything owned by root.
func addTree(tw *tar.Writer, root string) error {
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if st.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(p); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(st, link)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		h.Name = filepath.Join("rootfs", rel)
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
		if err := tw.WriteHeader(h); err != nil || !st.Mode().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		_, err = tw.Write(b)
		return err
	})
}
