package pki

import (
	"net/netip"
	"strings"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// roleTask is what the certificate of a task says: it proves the task's names
// to its clients, and opens nothing of the cluster's own.
const roleTask Role = "task"

// taskDomain is where tasks have their names.
const taskDomain = ".thisdcos.directory"

// IssueTask makes a key and a certificate for a task that is reached by names,
// all of them below thisdcos.directory, and returns them with the CA's
// certificate, in PEM. A life of zero is LeafTTL.
func (a *Authority) IssueTask(names []string, life time.Duration) (key, chain, root []byte, err error) {
	const op = "issue certificate of task"
	if len(names) == 0 {
		return nil, nil, nil, fault.Newf(op, fault.Invalid, "it has no name")
	}
	own := MasterRequest("", netip.Addr{}).Names
	for _, name := range names {
		if !strings.HasSuffix(name, taskDomain) {
			return nil, nil, nil, fault.Newf(op, fault.Invalid, "%s is not below %s", name, taskDomain[1:])
		}
		for _, o := range own {
			if strings.EqualFold(name, o) {
				return nil, nil, nil, fault.Newf(op, fault.Denied, "%s is a name of the masters", name)
			}
		}
	}
	cert, err := a.Issue(Request{Role: roleTask, Name: names[0], Names: names[1:], TTL: life})
	if err != nil {
		return nil, nil, nil, err
	}
	if key, err = keyPEM(cert.PrivateKey); err != nil {
		return nil, nil, nil, err
	}
	return key, certPEM(cert.Certificate[0]), a.CertPEM(), nil
}
