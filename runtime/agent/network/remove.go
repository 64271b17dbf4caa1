package network

import (
	"errors"
	"path/filepath"

	"dcos.example/dcos/runtime/fault"
)

// Remove takes out of the kernel what managers with these options made and
// left: the table, the bridge, forwarding if they switched it on, and the
// namespaces of containers with their cables. It needs none of their records,
// and no containers may run any more.
func Remove(o Options) error {
	setDefault(&o.Table, defaultTable)
	setDefault(&o.NetnsDir, defaultNetnsDir)
	setDefault(&o.Prefix, defaultPrefix)
	left, err := filepath.Glob(filepath.Join(o.NetnsDir, o.Prefix+"*"))
	errs := []error{err}
	for _, path := range left {
		errs = append(errs, removeNetns(path)) // its end of the cable goes with it, and that the other
	}
	errs = append(errs, (&natTable{name: o.Table}).drop(), removeBridge(o.Bridge.Name))
	if err := errors.Join(errs...); err != nil {
		return fault.New("remove container network", fault.Internal, err)
	}
	return nil
}
