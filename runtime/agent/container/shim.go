package container

import (
	"slices"
	"sync"

	"github.com/google/uuid"
)

// groupAnnotation makes containerd put a container under the shim of others
// with the same value.
const groupAnnotation = "io.containerd.runc.v2.group"

// shimSize is how many containers share a shim. A shim costs 10 MiB and a
// sixth of the time that a start takes; whoever kills one ends all it has.
const shimSize = 10

// shims decides which containers share a shim. A shim ends with the removal of
// its last container and does not know of those that are on their way to it,
// so a group is joined only while a member is there that stays: its founder is
// alone until it has a task, and once any member is to be removed nobody joins
// any more, and those on their way arrive first.
//
// Groups of a former run of the agent are not joined. The zero value is ready.
type shims struct {
	mu   sync.Mutex
	open []*shim          // with room, none of whose members was removed
	of   map[string]*shim // by container
}

type shim struct {
	id      string
	members int            // ever
	coming  sync.WaitGroup // members on their way
}

// join returns the group of a container that is about to start. The caller
// reports with arrived how that went.
func (s *shims) join() *shim {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) == 0 {
		return &shim{id: "shim-" + uuid.NewString(), members: 1}
	}
	g := s.open[0]
	g.coming.Add(1)
	if g.members++; g.members == shimSize {
		s.close(g)
	}
	return g
}

// arrived tells that g's shim has the container, or that it never will.
func (s *shims) arrived(g *shim, container string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	founder := g.members == 1
	if !founder {
		g.coming.Done()
	}
	if !ok {
		return
	}
	if s.of == nil {
		s.of = make(map[string]*shim)
	}
	s.of[container] = g
	if founder {
		s.open = append(s.open, g)
	}
}

// leave must be called before a container is removed.
func (s *shims) leave(container string) {
	s.mu.Lock()
	g := s.of[container]
	if g != nil {
		delete(s.of, container)
		s.close(g)
	}
	s.mu.Unlock()
	if g != nil {
		g.coming.Wait() // nobody joins a closed group
	}
}

// close takes no further members; s.mu is held.
func (s *shims) close(g *shim) {
	s.open = slices.DeleteFunc(s.open, func(o *shim) bool { return o == g })
}
