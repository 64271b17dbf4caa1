package validate_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	mesos "dcos.example/dcos/runtime/api/mesos"
	"dcos.example/dcos/runtime/master/validate"
	"dcos.example/dcos/runtime/resource"
)

func push(t *testing.T, text string, rs ...resource.Reservation) resource.Resources {
	t.Helper()
	r := resource.MustParse(text)
	for _, res := range rs {
		var err error
		if r, err = r.Push(res); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func volumeOf(d resource.Resources, id string, edit ...func(*mesos.Resource)) []*mesos.Resource {
	p := proto.CloneOf(d.Proto()[0])
	p.Disk = &mesos.Resource_DiskInfo{
		Source:      p.Disk.GetSource(),
		Persistence: &mesos.Resource_DiskInfo_Persistence{Id: proto.String(id), Principal: proto.String("p")},
		Volume:      &mesos.Volume{ContainerPath: proto.String("/data"), Mode: mesos.Volume_RW.Enum()},
	}
	for _, e := range edit {
		e(p)
	}
	return []*mesos.Resource{p}
}

func TestConversion(t *testing.T) {
	eng, web, static := resource.Reservation{Role: "eng", Principal: "p"}, resource.Reservation{Role: "eng/web", Principal: "p"}, resource.Reservation{Role: "eng", Static: true}
	disk := push(t, "disk:10", eng)
	framework := validate.Asking{Role: "eng", Principal: "p", Refinement: true, Shared: true}
	operator := validate.Asking{Refinement: true, Shared: true}
	volume := volumeOf(disk, "v")
	isShared := func(p *mesos.Resource) { p.Shared = &mesos.Resource_SharedInfo{} }
	read := func(ps []*mesos.Resource) resource.Resources {
		r, err := resource.FromProto(ps)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	reserve := func(rs ...*mesos.Resource) *mesos.Offer_Operation {
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Resources: rs}}
	}
	update := func(from, to resource.Resources) *mesos.Offer_Operation {
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Source: from.Proto(), Resources: to.Proto()}}
	}
	unreserve := func(rs []*mesos.Resource) *mesos.Offer_Operation {
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: rs}}
	}
	create := func(vs ...*mesos.Resource) *mesos.Offer_Operation {
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: vs}}
	}
	destroy := func(vs ...*mesos.Resource) *mesos.Offer_Operation {
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: vs}}
	}
	grow := func(v, add *mesos.Resource) *mesos.Offer_Operation {
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_GROW_VOLUME.Enum(), GrowVolume: &mesos.Offer_Operation_GrowVolume{Volume: v, Addition: add}}
	}
	shrink := func(v *mesos.Resource, by float64) *mesos.Offer_Operation {
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_SHRINK_VOLUME.Enum(), ShrinkVolume: &mesos.Offer_Operation_ShrinkVolume{Volume: v, Subtract: &mesos.Value_Scalar{Value: &by}}}
	}
	plain := resource.MustParse("cpus:1")
	for _, tc := range []struct {
		name     string
		op       *mesos.Offer_Operation
		a        validate.Asking
		says     string // of the error; "": none
		from, to resource.Resources
	}{
		{name: "reserve", op: reserve(push(t, "cpus:1", eng).Proto()...), a: framework, from: plain, to: push(t, "cpus:1", eng)},
		{name: "refine", op: reserve(push(t, "cpus:1", eng, web).Proto()...), a: framework, from: push(t, "cpus:1", eng), to: push(t, "cpus:1", eng, web)},
		{name: "refine what is static", op: reserve(push(t, "cpus:1", static, web).Proto()...), a: framework, from: push(t, "cpus:1", static), to: push(t, "cpus:1", static, web)},
		{name: "reserve below the role", op: reserve(push(t, "cpus:1", web).Proto()...), a: framework, from: plain, to: push(t, "cpus:1", web)},
		{name: "reserve nothing", op: reserve(), a: framework, says: "No resources"},
		{name: "reserve without", op: reserve(plain.Proto()...), a: framework, says: "has no dynamic reservation"},
		{name: "reserve static", op: reserve(push(t, "cpus:1", static).Proto()...), a: operator, says: "has no dynamic reservation"},
		{name: "reserve above the role", op: reserve(push(t, "cpus:1", eng).Proto()...), a: validate.Asking{Role: "eng/web", Principal: "p", Refinement: true}, says: "cannot be made with an offer for role 'eng/web'"},
		{name: "reserve for others", op: reserve(push(t, "cpus:1", resource.Reservation{Role: "engine", Principal: "p"}).Proto()...), a: framework, says: "role 'engine' cannot"},
		{name: "other principal", op: reserve(push(t, "cpus:1", resource.Reservation{Role: "eng", Principal: "q"}).Proto()...), a: framework, says: "cannot carry principal 'q'"},
		{name: "no principal", op: reserve(push(t, "cpus:1", resource.Reservation{Role: "eng"}).Proto()...), a: framework, says: "but has none"},
		{name: "operator's principal", op: reserve(push(t, "cpus:1", resource.Reservation{Role: "any", Principal: "q"}).Proto()...), a: operator, from: plain, to: push(t, "cpus:1", resource.Reservation{Role: "any", Principal: "q"})},
		{name: "other allocation", op: reserve(push(t, "cpus:1", eng).Allocate("x").Proto()...), a: framework, says: "allocated to role 'x'"},
		{name: "no refinement", op: reserve(push(t, "cpus:1", eng, web).Proto()...), a: validate.Asking{Role: "eng"}, says: "RESERVATION_REFINEMENT"},
		{name: "reserve a volume", op: reserve(volume...), a: framework, says: "cannot be reserved"},
		{name: "update", op: update(push(t, "cpus:1", eng, web), push(t, "cpus:1", resource.Reservation{Role: "ops"})), a: operator, from: push(t, "cpus:1", eng, web), to: push(t, "cpus:1", resource.Reservation{Role: "ops"})},
		{name: "update more", op: update(push(t, "cpus:1", eng), push(t, "cpus:2", eng)), a: operator, says: "differ in more"},
		{name: "update static", op: update(push(t, "cpus:1", static), push(t, "cpus:1", eng)), a: operator, says: "differ in more"},
		{name: "update a volume", op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Source: volume, Resources: disk.Proto()}}, a: operator, says: "cannot be reserved"},

		{name: "unreserve", op: unreserve(push(t, "cpus:1", eng, web).Proto()), a: operator, from: push(t, "cpus:1", eng, web), to: push(t, "cpus:1", eng)},
		{name: "unreserve static", op: unreserve(push(t, "cpus:1", static).Proto()), a: operator, says: "not dynamically reserved"},
		{name: "unreserve plain", op: unreserve(plain.Proto()), a: operator, says: "not dynamically reserved"},
		{name: "unreserve a volume", op: unreserve(volume), a: operator, says: "must be destroyed first"},

		{name: "create", op: create(volume...), a: framework, from: disk, to: read(volume)},
		{name: "create on static", op: create(volumeOf(push(t, "disk:1", static), "v")...), a: framework, from: push(t, "disk:1", static), to: read(volumeOf(push(t, "disk:1", static), "v"))},
		{name: "create shared", op: create(volumeOf(disk, "v", isShared)...), a: framework, from: disk, to: read(volumeOf(disk, "v", isShared))},
		{name: "not shared", op: create(volumeOf(disk, "v", isShared)...), a: validate.Asking{Role: "eng"}, says: "SHARED_RESOURCES"},
		{name: "create from plain", op: create(volumeOf(resource.MustParse("disk:1"), "v")...), a: framework, says: "unreserved"},
		{name: "create no volume", op: create(disk.Proto()...), a: framework, says: "is not a persistent volume"},
		{name: "bad id", op: create(volumeOf(disk, "a/b")...), a: framework, says: "persistence ID"},
		{name: "twice", op: create(volume[0], volume[0]), a: framework, says: "in use for role 'eng'"},
		{name: "there already", op: create(volume...), a: validate.Asking{Total: read(volume)}, says: "in use for role 'eng'"},
		{name: "of another role", op: create(volume...), a: validate.Asking{Total: read(volumeOf(push(t, "disk:1", web), "v"))}, from: disk, to: read(volume)},
		{name: "read-only", op: create(volumeOf(disk, "v", func(p *mesos.Resource) { p.Disk.Volume.Mode = mesos.Volume_RO.Enum() })...), a: framework, says: "Read-only"},
		{name: "no volume info", op: create(volumeOf(disk, "v", func(p *mesos.Resource) { p.Disk.Volume = nil })...), a: framework, says: "Expecting 'volume'"},
		{name: "host path", op: create(volumeOf(disk, "v", func(p *mesos.Resource) { p.Disk.Volume.HostPath = proto.String("/") })...), a: framework, says: "host_path"},
		{name: "climbs", op: create(volumeOf(disk, "v", func(p *mesos.Resource) { p.Disk.Volume.ContainerPath = proto.String("x/../../y") })...), a: framework, says: "container_path"},
		{name: "other's volume", op: create(volumeOf(disk, "v", func(p *mesos.Resource) { p.Disk.Persistence.Principal = proto.String("q") })...), a: framework, says: "cannot carry principal 'q'"},

		{name: "destroy", op: destroy(volume...), a: framework, from: read(volume), to: disk},
		{name: "destroy disk", op: destroy(disk.Proto()...), a: framework, says: "is not a persistent volume"},
		{name: "destroy shared", op: destroy(volumeOf(disk, "v", isShared)...), a: operator, from: read(volumeOf(disk, "v", isShared)), to: disk},
		{name: "destroy used", op: destroy(volumeOf(disk, "v", isShared)...), a: validate.Asking{InUse: func(resource.Item) bool { return true }}, says: "is in use"},

		{name: "grow", op: grow(volume[0], push(t, "disk:5", eng).Proto()[0]), a: framework, from: read(volume).Add(push(t, "disk:5", eng)), to: read(volumeOf(push(t, "disk:15", eng), "v"))},
		{name: "grow by another's", op: grow(volume[0], push(t, "disk:5", web).Proto()[0]), a: operator, says: "not of the same disk"},
		{name: "grow shared", op: grow(volumeOf(disk, "v", isShared)[0], push(t, "disk:5", eng).Proto()[0]), a: framework, says: "shared"},
		{name: "shrink", op: shrink(volume[0], 4), a: framework, from: read(volume), to: read(volumeOf(push(t, "disk:6", eng), "v")).Add(push(t, "disk:4", eng))},
		{name: "shrink to nothing", op: shrink(volume[0], 10), a: framework, says: "cannot be taken"},
		{name: "shrink by nothing", op: shrink(volume[0], math.NaN()), a: framework, says: "cannot be taken"},
		{name: "make a disk", op: &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE_DISK.Enum()}, a: operator, says: "not supported by this release"},
	} {
		from, to, err := validate.Conversion(tc.op, tc.a)
		switch {
		case tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)):
			t.Errorf("%s: want an error with %q, got %v", tc.name, tc.says, err)
		case tc.says == "" && (err != nil || !from.Equal(tc.from.Allocate(tc.a.Role)) || !to.Equal(tc.to.Allocate(tc.a.Role))):
			t.Errorf("%s: %v → %v, %v; want %v → %v", tc.name, from, to, err, tc.from, tc.to)
		case tc.says == "is in use" && !errors.Is(err, validate.ErrInUse):
			t.Errorf("%s: %v is not ErrInUse", tc.name, err)
		}
	}
}
