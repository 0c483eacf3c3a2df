// Command shoal is the client of the Shoal daemon. See package internal/cli.
package main

import (
	"context"
	"os"

	"github.com/shoal-project/shoal/internal/cli"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

func main() {
	os.Exit(cli.Main(context.Background(), version, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
