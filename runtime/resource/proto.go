package resource

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/fault"
)

//lint:file-ignore SA1019 Reads and writes the form before reservation refinement, too.

// seal computes m's canonical key and returns m, or nil when m is empty.
func seal(m meta) *meta {
	m.key, m.atomic = "", false
	if len(m.reservations) == 0 && m.provider == "" && !m.revocable && !m.shared && m.disk == nil {
		return nil
	}
	p := &mesos.Resource{Name: proto.String(""), Type: mesos.Value_SCALAR.Enum()}
	m.put(p)
	if id := m.disk.GetPersistence().GetId(); id != "" || m.disk.GetVolume() != nil {
		// As in Mesos, where a task mounts a volume and who made it are no part
		// of what the volume is.
		p.Disk = &mesos.Resource_DiskInfo{Source: m.disk.GetSource()}
		if id != "" {
			p.Disk.Persistence = &mesos.Resource_DiskInfo_Persistence{Id: proto.String(id)}
		}
	}
	for _, r := range p.Reservations { // labels are a multiset
		if l := r.GetLabels(); len(l.GetLabels()) > 1 {
			l = proto.CloneOf(l)
			slices.SortStableFunc(l.Labels, func(a, b *mesos.Label) int {
				return cmp.Or(cmp.Compare(a.GetKey(), b.GetKey()), cmp.Compare(a.GetValue(), b.GetValue()))
			})
			r.Labels = l
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(p)
	if err != nil {
		panic("resource: cannot marshal metadata: " + err.Error())
	}
	m.key = string(b)
	src := m.disk.GetSource()
	switch src.GetType() {
	case mesos.Resource_DiskInfo_Source_MOUNT, mesos.Resource_DiskInfo_Source_BLOCK:
		m.atomic = src != nil
	case mesos.Resource_DiskInfo_Source_RAW:
		m.atomic = src.GetId() != ""
	}
	m.atomic = m.atomic || m.disk.GetPersistence() != nil
	return &m
}

// put writes m on p in the post-refinement form.
func (m *meta) put(p *mesos.Resource) {
	if m == nil {
		return
	}
	for _, r := range m.reservations {
		p.Reservations = append(p.Reservations, r.proto())
	}
	if m.provider != "" {
		p.ProviderId = &mesos.ResourceProviderID{Value: proto.String(m.provider)}
	}
	if m.revocable {
		p.Revocable = &mesos.Resource_RevocableInfo{}
	}
	if m.shared {
		p.Shared = &mesos.Resource_SharedInfo{}
	}
	p.Disk = m.disk
}

func (r Reservation) proto() *mesos.Resource_ReservationInfo {
	p := &mesos.Resource_ReservationInfo{
		Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String(r.Role), Labels: r.Labels,
	}
	if r.Static {
		p.Type = mesos.Resource_ReservationInfo_STATIC.Enum()
	}
	if r.Principal != "" {
		p.Principal = proto.String(r.Principal)
	}
	return p
}

// FromProto reads resources as frameworks and agents write them, in the form
// before reservation refinement (role, reservation) or after (reservations).
// Empty quantities vanish. The result shares disk and label messages with rs,
// which must not be changed afterwards.
func FromProto(rs []*mesos.Resource) (Resources, error) {
	items := make([]Item, 0, len(rs))
	for _, p := range rs {
		it, err := itemFromProto(p)
		if err != nil {
			return Resources{}, fault.Newf("read resources", fault.Invalid, "resource '%s': %w", p.GetName(), err)
		}
		items = append(items, it)
	}
	return build(items), nil
}

func itemFromProto(p *mesos.Resource) (Item, error) {
	it := Item{name: p.GetName(), alloc: p.GetAllocationInfo().GetRole()}
	if it.name == "" {
		return it, errors.New("Empty resource name")
	}
	switch p.GetType() {
	case mesos.Value_SCALAR:
		if p.Scalar == nil || p.Ranges != nil || p.Set != nil {
			return it, errors.New("Invalid scalar resource")
		}
		v := p.Scalar.GetValue()
		if err := checkFloat(v); err != nil {
			return it, fmt.Errorf("Invalid scalar resource: %w", err)
		}
		if it.name == GPUs && v != math.Trunc(v) {
			return it, errors.New("'gpus' must be a whole number")
		}
		it.kind, it.scalar = KindScalar, Float(v)
	case mesos.Value_RANGES:
		if p.Ranges == nil || p.Scalar != nil || p.Set != nil {
			return it, errors.New("Invalid ranges resource")
		}
		rs := make([]Range, 0, len(p.Ranges.Range))
		for _, r := range p.Ranges.Range {
			if r.GetBegin() > r.GetEnd() {
				return it, errors.New("Invalid ranges resource: begin > end")
			}
			rs = append(rs, Range{r.GetBegin(), r.GetEnd()})
		}
		it.kind, it.ranges = KindRanges, NewRanges(rs...)
	case mesos.Value_SET:
		if p.Set == nil || p.Scalar != nil || p.Ranges != nil {
			return it, errors.New("Invalid set resource")
		}
		set := slices.Clone(p.Set.Item)
		slices.Sort(set)
		it.kind, it.set = KindSet, slices.Compact(set)
		if len(it.set) != len(p.Set.Item) {
			return it, errors.New("Invalid set resource: duplicated elements")
		}
	default:
		return it, errors.New("Unsupported resource type")
	}
	m := meta{
		provider: p.GetProviderId().GetValue(), revocable: p.Revocable != nil, shared: p.Shared != nil, disk: p.Disk,
	}
	if err := m.readReservations(p); err != nil {
		return it, err
	}
	if p.Disk != nil && it.name != Disk {
		return it, errors.New("DiskInfo should not be set for a resource other than 'disk'")
	}
	if m.shared && p.GetDisk().GetPersistence() == nil {
		return it, errors.New("Only persistent volumes can be shared")
	}
	if m.revocable && len(m.reservations) > 0 {
		return it, errors.New("Revocable resources cannot be reserved")
	}
	it.meta = seal(m)
	return it, nil
}

func (m *meta) readReservations(p *mesos.Resource) error {
	role := p.GetRole() // "*" when not set
	switch {
	case len(p.Reservations) > 0:
		// Both forms at once is what read-only endpoints write: fine while they agree.
		if last := p.Reservations[len(p.Reservations)-1].GetRole(); p.Role != nil && role != last || p.Reservation != nil && p.Role == nil {
			return errors.New("'role' and 'reservation' must not contradict 'reservations'")
		}
		for i, r := range p.Reservations {
			if r.Type == nil || r.GetType() == mesos.Resource_ReservationInfo_UNKNOWN {
				return errors.New("'Resource.ReservationInfo.type' must be set")
			}
			static := r.GetType() == mesos.Resource_ReservationInfo_STATIC
			if static && i > 0 {
				return errors.New("a refined reservation must be DYNAMIC")
			}
			if i > 0 && !IsAncestor(p.Reservations[i-1].GetRole(), r.GetRole()) {
				return fmt.Errorf("reservation role '%s' does not refine '%s'", r.GetRole(), p.Reservations[i-1].GetRole())
			}
			m.reservations = append(m.reservations, Reservation{static, r.GetRole(), r.GetPrincipal(), r.Labels})
		}
	case p.Reservation != nil:
		r := p.Reservation
		if r.Role != nil || r.Type != nil {
			return errors.New("'Resource.ReservationInfo.role' and '.type' must not be set in 'reservation'")
		}
		if role == AnyRole {
			return errors.New("Invalid reservation: role \"*\" cannot be dynamically reserved")
		}
		m.reservations = []Reservation{{false, role, r.GetPrincipal(), r.Labels}}
	case role != AnyRole:
		m.reservations = []Reservation{{Static: true, Role: role}}
	}
	for _, r := range m.reservations {
		if r.Role == AnyRole {
			return errors.New("role \"*\" cannot be reserved")
		}
		if err := CheckRole(r.Role); err != nil {
			return err
		}
	}
	return nil
}

func (i *Item) proto() *mesos.Resource {
	p := &mesos.Resource{Name: proto.String(i.name)}
	switch i.kind {
	case KindScalar:
		p.Type = mesos.Value_SCALAR.Enum()
		p.Scalar = &mesos.Value_Scalar{Value: proto.Float64(i.scalar.Float())}
	case KindRanges:
		p.Type = mesos.Value_RANGES.Enum()
		p.Ranges = i.ranges.Proto()
	case KindSet:
		p.Type = mesos.Value_SET.Enum()
		p.Set = &mesos.Value_Set{Item: i.set}
	}
	if i.alloc != "" {
		p.AllocationInfo = &mesos.Resource_AllocationInfo{Role: proto.String(i.alloc)}
	}
	i.meta.put(p)
	return p
}

// Proto writes a as a message.
func (a Ranges) Proto() *mesos.Value_Ranges {
	out := &mesos.Value_Ranges{Range: make([]*mesos.Value_Range, len(a))}
	for i, r := range a {
		out.Range[i] = &mesos.Value_Range{Begin: proto.Uint64(r.Begin), End: proto.Uint64(r.End)}
	}
	return out
}

// Proto writes r in the form after reservation refinement: reservations[] and
// no role. The messages must not be changed.
func (r Resources) Proto() []*mesos.Resource {
	out := make([]*mesos.Resource, len(r.items))
	for i := range r.items {
		out[i] = r.items[i].proto()
	}
	return out
}

// ProtoLegacy writes r in the form before reservation refinement: role and
// reservation. Refined reservations have no such form; they are left out.
func (r Resources) ProtoLegacy() []*mesos.Resource {
	out := make([]*mesos.Resource, 0, len(r.items))
	for i := range r.items {
		if r.items[i].Refined() {
			continue
		}
		p := r.items[i].proto()
		r.items[i].putLegacy(p)
		p.Reservations = nil
		out = append(out, p)
	}
	return out
}

// ProtoBoth writes r in both forms at once, as Mesos' read-only endpoints do.
func (r Resources) ProtoBoth() []*mesos.Resource {
	out := r.Proto()
	for i := range r.items {
		if !r.items[i].Refined() {
			r.items[i].putLegacy(out[i])
		}
	}
	return out
}

func (i *Item) putLegacy(p *mesos.Resource) {
	p.Role = proto.String(i.Role())
	if i.Dynamic() {
		res := i.meta.reservations[0]
		p.Reservation = &mesos.Resource_ReservationInfo{Labels: res.Labels}
		if res.Principal != "" {
			p.Reservation.Principal = proto.String(res.Principal)
		}
	}
}
