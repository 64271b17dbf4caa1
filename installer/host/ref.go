package host

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"

	"dcos.example/dcos/providers/input"
	"dcos.example/dcos/runtime/fault"
)

// Kind is a way to reach a host.
type Kind string

// The kinds of hosts.
const (
	KindLocal    Kind = "local"    // made by providers/local on this machine
	KindSSH      Kind = "ssh"      // any machine that one can log into
	KindHere     Kind = "here"     // this machine itself, where one may not log in to others
	KindEmulated Kind = "emulated" // in memory, for tests
)

// Ref says how to reach a host. It is what a Host resource calls connection.
type Ref struct {
	Kind Kind
	Name string // for messages
	Dir  string // local: the host's directory on this machine
	SSH  SSH    // ssh
}

// Identity tells hosts apart: two references with the same one are two ways
// to the same host.
func (r Ref) Identity() string {
	switch r.Kind {
	case KindLocal:
		return "local:" + r.Dir
	case KindSSH:
		return "ssh:" + r.SSH.Endpoint()
	default:
		return string(r.Kind) + ":" + r.Name
	}
}

// Sudo is how one becomes root after logging in.
type Sudo string

// The ways to become root.
const (
	SudoNone         Sudo = "none"         // the user is root
	SudoPasswordless Sudo = "passwordless" // sudo asks for nothing
	SudoPassword     Sudo = "password"     // sudo asks for a password
)

// SSH says how to log into a machine.
type SSH struct {
	Login
	Sudo         Sudo
	SudoPassword string
	// Bastion is the machine to go through, nil for none.
	Bastion *Login
	// Timeout bounds one attempt to connect; 0 means the default.
	Timeout time.Duration
}

// Login is how to log into one machine, the host or the bastion before it.
type Login struct {
	Address  string // name or address
	Port     int
	User     string
	KeyFile  string
	UseAgent bool // the keys of the SSH agent of whoever runs the installer
	Password string
	// KnownHosts is the file with the keys of machines. HostKey, in the form of
	// authorized_keys, is the only one accepted when it is set.
	KnownHosts string
	HostKey    string
	// TrustOnFirstUse writes the key of a machine that KnownHosts does not have
	// into it, instead of refusing the machine.
	TrustOnFirstUse bool
}

// Endpoint is the address with its port.
func (l Login) Endpoint() string { return net.JoinHostPort(l.Address, strconv.Itoa(l.Port)) }

// ReadRef reads the reference of the host called name out of a connection. The
// error names everything that is wrong or unknown.
func ReadRef(name string, m resource.PropertyMap) (Ref, error) {
	r := input.Read(m)
	ref := ReadConnection(name, r)
	var errs []error
	for _, f := range r.Failures() {
		errs = append(errs, fmt.Errorf("%s %s", f.Property, f.Reason))
	}
	if r.Unknown() {
		errs = append(errs, errors.New("not all of it is known yet"))
	}
	if len(errs) > 0 {
		return ref, fault.New("read the connection to host "+name, fault.Invalid, errors.Join(errs...))
	}
	return ref, nil
}

// ReadConnection is ReadRef as part of a Check: problems are reported to r.
func ReadConnection(name string, r *input.Reader) Ref {
	ref := Ref{Name: name, Kind: Kind(r.Text("kind"))}
	switch ref.Kind {
	case KindLocal:
		ref.Dir = r.Text("dir")
	case KindSSH:
		ref.SSH = readSSH(r)
	case KindHere:
		ref.SSH.Address = r.Text("address")
	case KindEmulated, "": // "": unknown, or reported by Text
	default:
		r.Fail("kind", "must be local or ssh, not %s", ref.Kind)
	}
	return ref
}

func readSSH(r *input.Reader) SSH {
	s := SSH{Login: readLogin(r), Sudo: Sudo(r.OptionalText("sudo")), SudoPassword: r.OptionalText("sudoPassword")}
	switch s.Sudo {
	case "":
		s.Sudo = SudoNone
	case SudoNone, SudoPasswordless:
	case SudoPassword:
		if s.SudoPassword == "" && !r.Unknown() {
			r.Fail("sudoPassword", "is missing: sudo asks for one")
		}
	default:
		r.Fail("sudo", "must be none, passwordless or password, not %s", s.Sudo)
	}
	if text := r.OptionalText("timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			r.Fail("timeout", "%q is not a duration such as 10s", text)
		}
		s.Timeout = d
	}
	if b := r.Object("bastion"); len(b.Keys()) > 0 {
		l := readLogin(b)
		b.Close()
		s.Bastion = &l
	}
	return s
}

func readLogin(r *input.Reader) Login {
	l := Login{
		Address: r.Text("address"), Port: int(r.OptionalNumber("port", 22)), User: r.OptionalText("user"),
		KeyFile: r.OptionalText("keyFile"), UseAgent: r.Bool("useAgent"), Password: r.OptionalText("password"),
		KnownHosts: r.OptionalText("knownHosts"), HostKey: r.OptionalText("hostKey"), TrustOnFirstUse: r.Bool("trustOnFirstUse"),
	}
	if l.User == "" {
		l.User = "root"
	}
	if l.Port < 1 || l.Port > 65535 {
		r.Fail("port", "must be between 1 and 65535, not %d", l.Port)
	}
	return l
}

// Property is what ReadRef reads: the connection of a Host resource. Passwords
// in it are secret.
func (r Ref) Property() resource.PropertyValue {
	m := resource.PropertyMap{"kind": resource.NewProperty(string(r.Kind))}
	switch r.Kind {
	case KindLocal:
		m["dir"] = resource.NewProperty(r.Dir)
	case KindSSH:
		r.SSH.Login.put(m)
		m["sudo"] = resource.NewProperty(string(r.SSH.Sudo))
		if r.SSH.SudoPassword != "" {
			m["sudoPassword"] = resource.MakeSecret(resource.NewProperty(r.SSH.SudoPassword))
		}
		if r.SSH.Timeout > 0 {
			m["timeout"] = resource.NewProperty(r.SSH.Timeout.String())
		}
		if r.SSH.Bastion != nil {
			b := resource.PropertyMap{}
			r.SSH.Bastion.put(b)
			m["bastion"] = resource.NewProperty(b)
		}
	}
	return resource.NewProperty(m)
}

func (l Login) put(m resource.PropertyMap) {
	m["address"], m["port"] = resource.NewProperty(l.Address), resource.NewProperty(float64(l.Port))
	for key, text := range map[resource.PropertyKey]string{"user": l.User, "keyFile": l.KeyFile, "knownHosts": l.KnownHosts, "hostKey": l.HostKey} {
		if text != "" {
			m[key] = resource.NewProperty(text)
		}
	}
	for key, set := range map[resource.PropertyKey]bool{"useAgent": l.UseAgent, "trustOnFirstUse": l.TrustOnFirstUse} {
		if set {
			m[key] = resource.NewProperty(true)
		}
	}
	if l.Password != "" {
		m["password"] = resource.MakeSecret(resource.NewProperty(l.Password))
	}
}
