package allocator

import (
	"fmt"
	"slices"
)

// CheckOrder reports a node whose children are not in the order of their shares.
func (a *Allocator) CheckOrder() error {
	a.resort()
	var walk func(n *node) error
	walk = func(n *node) error {
		if !slices.IsSortedFunc(n.kids, less) {
			return fmt.Errorf("children of %q are out of order", n.path)
		}
		for _, k := range n.kids {
			if k.share != a.shareOf(k) || !k.active || k.client == nil && len(k.kids) == 0 {
				return fmt.Errorf("%q under %q: share %v, should be %v", k.name, n.path, k.share, a.shareOf(k))
			}
			if err := walk(k); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(a.root)
}
