//go:build root

package bootstrap_test

import (
	"fmt"
	"net"
	"os"
	"testing"
)

// TestSquatter holds a port when this binary runs as a unit on a host; see
// TestPortInUseIsFound. Elsewhere it checks that nothing asks it to.
func TestSquatter(t *testing.T) {
	addr, asked := os.LookupEnv("SQUAT")
	if !asked {
		if os.Getpid() == 1 {
			t.Error("runs as a host's first process")
		}
		return
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening")
	l.Accept()
}
