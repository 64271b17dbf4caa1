package dcosconfig

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// quote writes a text as HCL does, where ${ begins an expression.
func quote(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

// write renders the file. What the installer knows by itself is left out; what
// DC/OS had and this cluster has not is a comment.
func (c *conversion) write(source string, entries []Entry) []byte {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Made of %s by dcos-install import. Look at it, then:", source)
	p("#   dcos-install preflight")
	p("#   dcos-install plan")
	p("#   dcos-install apply")
	p("")
	p("cluster %s {", quote(c.name))
	if len(c.resolve) > 0 {
		if _, ok := c.has["resolvers"]; !ok {
			p("# DC/OS's default, which the file did not change.")
		}
		var list []string
		for _, r := range c.resolve {
			list = append(list, quote(r))
		}
		p("resolvers = [%s]", strings.Join(list, ", "))
	} else {
		p("# No resolvers: names outside of the cluster do not resolve.")
	}
	if c.admin != "" {
		p("admin_user = %s", quote(c.admin))
	}
	if c.ownPassword {
		p("# The hash of DC/OS's password is of no use here. A password is generated and")
		p("# shown once, unless you set one: DCOS_VAR_admin_password=…")
		p("admin_password = var.admin_password")
	}
	p("}")
	if c.ownPassword {
		p("")
		p("variable \"admin_password\" {")
		p("type = string")
		p("sensitive = true")
		p("default = null")
		p("}")
	}
	p("")
	c.provider(p)
	c.group(p, "master", "master", c.masters)
	c.group(p, "agent", "agent", c.agents)
	c.group(p, "public_agent", "public-agent", c.publicAgents)
	var lost []Entry
	for _, e := range entries {
		if e.Status == Unsupported {
			lost = append(lost, e)
		}
	}
	if len(lost) > 0 {
		p("")
		p("# Not as it was in DC/OS:")
		for _, e := range lost {
			p("#   %s", strings.ReplaceAll(strings.TrimSuffix(fmt.Sprintf("%s: %s", e.Key, e.Note), ": "), "\n", " "))
		}
	}
	return hclwrite.Format([]byte(b.String()))
}

func (c *conversion) provider(p func(string, ...any)) {
	p("# Machines of your own, reached over SSH.")
	p("provider \"onprem\" {")
	if c.user != "" {
		p("user = %s", quote(c.user))
	} else {
		p("# user = \"centos\" # root if left out")
	}
	if c.port != 0 && c.port != 22 {
		p("port = %s", strconv.Itoa(c.port))
	}
	if c.keyFile != "" {
		p("key_file = %s", quote(c.keyFile))
	} else {
		p("agent = true # the keys of your SSH agent; or key_file = \"~/.ssh/id_ed25519\"")
	}
	p("# sudo_password = var.sudo_password # if sudo asks for one")
	if c.parallel != 0 && c.parallel != 20 {
		p("parallel = %s", strconv.Itoa(c.parallel))
	}
	p("}")
}

func (c *conversion) group(p func(string, ...any), role, prefix string, hosts []netip.Addr) {
	p("")
	if len(hosts) == 0 {
		p("# The file named no host of this role.")
		p("# node_group %s {", quote(role))
		p("#   hosts = { %s-1 = \"10.0.0.21\" }", prefix)
		p("# }")
		return
	}
	p("node_group %s {", quote(role))
	p("hosts = {")
	for i, a := range hosts {
		p("%s-%d = %s", prefix, i+1, quote(a.String()))
	}
	p("}")
	p("}")
}
