package validate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/resource"
)

// Asking is who asks for an operation, and on what.
type Asking struct {
	// Role is what the offer is allocated to, "" when the cluster's operator
	// asks, who may do it for every role.
	Role string
	// Principal must be that of new reservations and volumes; "" when it is not
	// known, which allows any.
	Principal string
	// Refinement and Shared are the capabilities of that name. Operators have
	// them.
	Refinement, Shared bool
	Total              resource.Resources // of the agent, now
	// InUse reports whether a task has the shared volume.
	InUse func(resource.Item) bool
}

// ErrInUse is part of the reason when what would have to be free is not.
var ErrInUse = errors.New("is in use")

// Conversion checks an operation that turns resources into others and returns
// what it takes and what it makes of it, allocated to the role. Whether the
// resources are there to take is for the caller to see.
func Conversion(op *mesos.Offer_Operation, a Asking) (from, to resource.Resources, err error) {
	switch op.GetType() {
	case mesos.Offer_Operation_RESERVE:
		from, to, err = a.reserve(op.GetReserve())
	case mesos.Offer_Operation_UNRESERVE:
		if from, err = a.read(op.GetUnreserve().GetResources()); err == nil {
			to, err = from.Pop()
		}
	case mesos.Offer_Operation_CREATE:
		from, to, err = a.create(op.GetCreate())
	case mesos.Offer_Operation_DESTROY:
		from, to, err = a.destroy(op.GetDestroy())
	case mesos.Offer_Operation_GROW_VOLUME:
		from, to, err = a.grow(op.GetGrowVolume())
	case mesos.Offer_Operation_SHRINK_VOLUME:
		from, to, err = a.shrink(op.GetShrinkVolume())
	default:
		err = fmt.Errorf("operation %s is not supported by this release", op.GetType())
	}
	return from.Allocate(a.Role), to.Allocate(a.Role), err
}

// read returns the resources of a call, without allocation.
func (a Asking) read(ps []*mesos.Resource) (resource.Resources, error) {
	r, err := resource.FromProto(ps)
	if err != nil {
		return r, err
	}
	if r.Empty() {
		return r, errors.New("No resources are given")
	}
	for _, role := range r.AllocationRoles() {
		if role != a.Role {
			return r, fmt.Errorf("resources allocated to role '%s' cannot be used with an offer for role '%s'", role, a.Role)
		}
	}
	return r.Unallocate(), nil
}

func (a Asking) principal(what, got string) error {
	switch {
	case a.Principal == "" || got == a.Principal:
		return nil
	case got == "":
		return fmt.Errorf("%s by principal '%s' must carry that principal, but has none", what, a.Principal)
	}
	return fmt.Errorf("%s by principal '%s' cannot carry principal '%s'", what, a.Principal, got)
}

func (a Asking) reserve(p *mesos.Offer_Operation_Reserve) (from, to resource.Resources, err error) {
	if to, err = a.read(p.GetResources()); err != nil {
		return from, to, err
	}
	for it := range to.All() {
		if !it.Dynamic() {
			return from, to, fmt.Errorf("%s has no dynamic reservation", it)
		}
		if it.VolumeID() != "" {
			return from, to, fmt.Errorf("A persistent volume %s cannot be reserved", it)
		}
		if it.Refined() && !a.Refinement {
			return from, to, errors.New("a refined reservation requires the RESERVATION_REFINEMENT capability")
		}
		stack := it.Reservations()
		last := stack[len(stack)-1]
		if a.Role != "" && last.Role != a.Role && !resource.IsAncestor(a.Role, last.Role) {
			return from, to, fmt.Errorf("a reservation for role '%s' cannot be made with an offer for role '%s'", last.Role, a.Role)
		}
		if err := a.principal("A reservation", last.Principal); err != nil {
			return from, to, err
		}
	}
	if len(p.GetSource()) == 0 {
		from, err = to.Pop()
		return from, to, err
	}
	if from, err = a.read(p.GetSource()); err != nil {
		return from, to, err
	}
	for it := range from.All() {
		if it.VolumeID() != "" {
			return from, to, fmt.Errorf("A persistent volume %s cannot be reserved", it)
		}
	}
	if !from.Configured().Equal(to.Configured()) {
		return from, to, fmt.Errorf("source %s and resources %s differ in more than dynamic reservations", from, to)
	}
	return from, to, nil
}

func (a Asking) create(p *mesos.Offer_Operation_Create) (from, to resource.Resources, err error) {
	if to, err = a.read(p.GetVolumes()); err != nil {
		return from, to, err
	}
	type identity struct{ role, id string }
	taken := map[identity]bool{}
	for it := range a.Total.All() {
		if it.VolumeID() != "" {
			taken[identity{it.Role(), it.VolumeID()}] = true
		}
	}
	for it := range to.All() {
		if err := a.volume(it); err != nil {
			return from, to, err
		}
		v := identity{it.Role(), it.VolumeID()}
		if taken[v] {
			return from, to, fmt.Errorf("Persistence ID '%s' is in use for role '%s' on the agent", v.id, v.role)
		}
		taken[v] = true
	}
	return to.WithoutVolumes(), to, nil
}

// volume checks one volume to be made.
func (a Asking) volume(it resource.Item) error {
	d := it.Disk()
	if it.VolumeID() == "" {
		return fmt.Errorf("%s is not a persistent volume", it)
	}
	if err := ID(it.VolumeID()); err != nil {
		return fmt.Errorf("Invalid persistence ID: %w", err)
	}
	switch v := d.GetVolume(); {
	case !it.Reserved():
		return errors.New("Persistent volumes cannot be created from unreserved resources")
	case it.Shared() && !a.Shared:
		return errors.New("Creating a shared volume requires the SHARED_RESOURCES capability")
	case v == nil:
		return errors.New("Expecting 'volume' to be set for persistent volume")
	case v.GetMode() != mesos.Volume_RW:
		return errors.New("Read-only persistent volume not supported")
	case v.HostPath != nil:
		return errors.New("Expecting 'host_path' to be unset for persistent volume")
	case v.Image != nil || v.Source != nil:
		return errors.New("A persistent volume has no image and no source")
	case v.GetContainerPath() == "" || slices.Contains(strings.Split(v.GetContainerPath(), "/"), ".."):
		return fmt.Errorf("'%s' cannot be the container_path of a persistent volume", v.GetContainerPath())
	case d.GetSource() != nil && d.GetSource().GetType() != mesos.Resource_DiskInfo_Source_PATH && d.GetSource().GetType() != mesos.Resource_DiskInfo_Source_MOUNT:
		return fmt.Errorf("A persistent volume cannot be created on a %s disk", d.GetSource().GetType())
	}
	return a.principal("A volume made", d.GetPersistence().GetPrincipal())
}

func (a Asking) destroy(p *mesos.Offer_Operation_Destroy) (from, to resource.Resources, err error) {
	if from, err = a.read(p.GetVolumes()); err != nil {
		return from, to, err
	}
	for it := range from.All() {
		switch {
		case it.VolumeID() == "":
			return from, to, fmt.Errorf("%s is not a persistent volume", it)
		case it.Shared() && a.InUse != nil && a.InUse(it):
			return from, to, fmt.Errorf("Persistent volume '%s' %w", it.VolumeID(), ErrInUse)
		}
	}
	return from, from.WithoutVolumes(), nil
}

// single reads one volume whose size is to change.
func (a Asking) single(p *mesos.Resource) (resource.Resources, resource.Item, error) {
	r, err := a.read([]*mesos.Resource{p})
	if err != nil {
		return r, resource.Item{}, err
	}
	it := slices.Collect(r.All())[0]
	switch {
	case it.VolumeID() == "":
		return r, it, fmt.Errorf("%s is not a persistent volume", it)
	case it.Shared():
		return r, it, errors.New("Growing or shrinking a shared persistent volume is not supported")
	case it.Disk().GetSource().GetType() == mesos.Resource_DiskInfo_Source_MOUNT:
		return r, it, errors.New("A volume that is a whole disk cannot grow or shrink")
	}
	return r, it, nil
}

// sized returns the volume p with another size.
func sized(p *mesos.Resource, size resource.Fixed) (resource.Resources, error) {
	p = proto.CloneOf(p)
	p.Scalar = &mesos.Value_Scalar{Value: proto.Float64(size.Float())}
	r, err := resource.FromProto([]*mesos.Resource{p})
	return r.Unallocate(), err
}

func (a Asking) grow(p *mesos.Offer_Operation_GrowVolume) (from, to resource.Resources, err error) {
	v, it, err := a.single(p.GetVolume())
	if err != nil {
		return from, to, err
	}
	more, err := a.read([]*mesos.Resource{p.GetAddition()})
	if err != nil {
		return from, to, err
	}
	if all := v.WithoutVolumes().Add(more); all.Len() != 1 {
		return from, to, fmt.Errorf("%s is not of the same disk and reservation as the volume %s", more, v)
	}
	to, err = sized(p.GetVolume(), it.Scalar()+more.Scalar(it.Name()))
	return v.Add(more), to, err
}

func (a Asking) shrink(p *mesos.Offer_Operation_ShrinkVolume) (from, to resource.Resources, err error) {
	v, it, err := a.single(p.GetVolume())
	if err != nil {
		return from, to, err
	}
	less := resource.Float(p.GetSubtract().GetValue())
	if less <= 0 || less >= it.Scalar() {
		return from, to, fmt.Errorf("%s cannot be taken from a volume of %s", less, it.Scalar())
	}
	left, err := sized(p.GetVolume(), it.Scalar()-less)
	if err != nil {
		return from, to, err
	}
	freed, err := sized(v.WithoutVolumes().Proto()[0], less)
	if err != nil {
		return from, to, err
	}
	return v, left.Add(freed), nil
}
