package resource

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"dcos.example/dcos/runtime/fault"
)

// Fixed is a scalar in thousandths: Mesos compares and adds scalars with three
// decimal digits, so that 0.1+0.2 is 0.3.
type Fixed int64

// Unit is one whole cpu, MB or other unit.
const Unit Fixed = 1000

// maxFloat bounds what a scalar may be on the wire; sums of a million such
// values still fit a Fixed.
const maxFloat = 9e9

// Float returns the scalar nearest to v, rounded to three decimals.
func Float(v float64) Fixed { return Fixed(math.Round(v * float64(Unit))) }

// Float returns f as a number of whole units.
func (f Fixed) Float() float64 { return float64(f) / float64(Unit) }

// String writes f with as many decimals as needed, at most three.
func (f Fixed) String() string {
	return strconv.FormatFloat(f.Float(), 'f', -1, 64)
}

// ParseFixed reads a decimal number.
func ParseFixed(s string) (Fixed, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		return 0, fault.Newf("parse scalar", fault.Invalid, "%q is not a number", s)
	}
	if err := checkFloat(v); err != nil {
		return 0, fault.New("parse scalar", fault.Invalid, err)
	}
	return Float(v), nil
}

func checkFloat(v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 || v > maxFloat {
		return fmt.Errorf("scalar %v is not between 0 and %g", v, maxFloat)
	}
	return nil
}
