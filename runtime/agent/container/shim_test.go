package container

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestShimFoundersAreAloneUntilTheyArrive(t *testing.T) {
	var s shims
	a, b := s.join(), s.join()
	if a == b {
		t.Error("b joined a shim that may never come up")
	}
	s.arrived(a, "a", false)
	s.arrived(b, "b", true)
	if c := s.join(); c != b {
		t.Errorf("c is in %s, not with b in %s", c.id, b.id)
	}
}

func TestShimsAreFilled(t *testing.T) {
	var s shims
	count := map[string]int{}
	for i := range 3 * shimSize {
		id := fmt.Sprint(i)
		g := s.join()
		count[g.id]++
		s.arrived(g, id, true)
	}
	if len(count) != 3 {
		t.Errorf("%d containers are on %d shims: %v", 3*shimSize, len(count), count)
	}
}

func TestShimIsNotLeftUnderThoseOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shims
		a := s.join()
		s.arrived(a, "a", true)
		b := s.join()
		if b != a {
			t.Fatalf("b is in %s, not in %s", b.id, a.id)
		}
		left := make(chan struct{})
		go func() { s.leave("a"); close(left) }()
		time.Sleep(time.Second)
		select {
		case <-left:
			t.Error("a was given up while b was on its way to its shim")
		default:
		}
		if c := s.join(); c == a {
			t.Error("c joined a shim that is about to end")
		}
		s.arrived(b, "b", true)
		<-left
		s.leave("nobody")
	})
}
