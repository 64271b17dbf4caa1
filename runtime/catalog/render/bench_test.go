package render_test

import (
	"testing"

	"dcos.example/dcos/runtime/catalog/render"
	"dcos.example/dcos/universe/schema"
)

// BenchmarkRender is one rendering of each of the revisions that can be.
func BenchmarkRender(b *testing.B) {
	revisions, err := universe()
	if err != nil {
		b.Fatal(err)
	}
	configs := schema.NewCache(8 << 20)
	for i := 0; b.Loop(); i++ {
		r := revisions[i%len(revisions)]
		p, err := r.Packed.Package()
		if err != nil {
			b.Fatal(err)
		}
		_, _ = render.Render(render.Input{Package: p, Packed: r.Packed, Configs: configs}) // some cannot be
	}
}
