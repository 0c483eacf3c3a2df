package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 2 {
		usage()
	}
	debug.SetMemoryLimit(32 << 20)
	switch os.Args[1] {
	case "serve":
		end(serveRequests())
	case "sftp":
		end(serveFiles())
	case "pause":
		signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
		for {
			_ = unix.Pause() // not select{}: Go calls that a deadlock
		}
	default:
		usage()
	}
}

func end(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent:", err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: shoal-agent serve|sftp|pause")
	os.Exit(2)
}

func serveFiles() error {
	syscall.Umask(0) // modes are the caller's to choose
	fs := &files{}
	srv := sftp.NewRequestServer(stdio{}, sftp.Handlers{FileGet: fs, FilePut: fs, FileCmd: fs, FileList: fs})
	defer srv.Close()
	if err := srv.Serve(); err != nil && err != io.EOF {
		return err
	}
	return nil
}

type stdio struct{}

func (stdio) Read(p []byte) (int, error)  { return os.Stdin.Read(p) }
func (stdio) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (stdio) Close() error                { return os.Stdin.Close() }
