// Command dcos-unpack completes a release on a host: it reads the stream that
// the installer sends and puts it into a directory.
//
//	dcos-unpack DIRECTORY DIGEST [WITHOUT…] < STREAM
//
// Files that begin with one of WITHOUT need not be there.
package main

import (
	"fmt"
	"os"

	"dcos.example/dcos/installer/host/unpack"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: dcos-unpack DIRECTORY DIGEST [WITHOUT…]")
		os.Exit(2)
	}
	if err := unpack.Into(os.Args[1], os.Args[2], os.Stdin, os.Args[3:]...); err != nil {
		fmt.Fprintln(os.Stderr, "dcos-unpack:", err)
		os.Exit(1)
	}
}
