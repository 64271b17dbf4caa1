package preflight

import (
	"cmp"
	"strings"
	"time"

	"dcos.example/dcos/runtime/fault"
)

// installerSkew is how far a host's clock may be from the installer's: the
// cluster's certificates are valid from five minutes before they are made.
const installerSkew = time.Minute

func accessChecks() []Check {
	return []Check{
		{ID: idReach, Title: "The host answers", Scope: ScopeHost, Severity: Error,
			Measures: "whether the installer can log in and run a command", Limit: "a login within 20 s",
			Fix: "start the host, and check its address, port, user and key in the file; an SSH server must run there", host: judgeReach},
		{ID: "sudo", Title: "Commands run as root", Scope: ScopeHost, Severity: Error,
			Measures: "the user that commands of the installer run as", Limit: "uid 0",
			Fix: "log in as root, or allow the user sudo for every command: echo 'USER ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/dcos, or set sudo_password in the provider block",
			host: func(h *Host, _ *Input) verdict {
				switch uid, ok := h.Facts.one("uid"); {
				case !ok:
					return unknown("the program id is missing")
				case uid != "0":
					return fail("uid %s", uid)
				default:
					return pass("uid 0")
				}
			}},
		{ID: "shell-noise", Title: "Logging in prints nothing", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "what a login without a terminal writes by itself", Limit: "nothing",
			Fix: "in ~/.bashrc of the user that logs in, and in /etc/bash.bashrc, print only for people: case $- in *i*) echo …;; esac; scp and rsync take it for data",
			host: func(h *Host, _ *Input) verdict {
				if h.Noise != "" {
					return fail("%q", cut(h.Noise, 80))
				}
				return pass("nothing")
			}},
		{ID: "locale", Title: "The locale of the host exists", Scope: ScopeHost, Severity: Warning, Machine: true,
			Measures: "whether LANG of /etc/locale.conf or /etc/default/locale is installed", Limit: "it is, or none is set",
			Fix: "install it (dpkg-reconfigure locales; dnf install glibc-langpack-en; zypper install glibc-locale), or localectl set-locale C.UTF-8",
			host: func(h *Host, _ *Input) verdict {
				kind, name, _ := strings.Cut(h.Facts.text("locale"), " ")
				switch kind {
				case "missing":
					return fail("%s is not installed", name)
				case "there":
					return pass("%s", name)
				default:
					return pass("none is set")
				}
			}},
		{ID: "tools", Title: "The usual programs are there", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "programs that the installer calls on the host", Limit: strings.Join(neededTools, " "),
			Fix: "install coreutils, tar and gzip", host: judgeTools},
		{ID: "clock-installer", Title: "The clock agrees with the installer's", Scope: ScopeHost, Severity: Error, Machine: true,
			Measures: "the host's clock against that of the machine the installer runs on; the time the answer took is in the host's favour", Limit: "at most " + span(installerSkew) + " apart",
			Fix: "set the clock and keep it right: timedatectl set-ntp true, or chronyc makestep; if it is the installer's clock that is wrong, set that", host: judgeInstallerClock},
	}
}

func judgeReach(h *Host, _ *Input) verdict {
	switch {
	case h.Unreached != nil:
		v := fail("%s", cut(strings.TrimPrefix(strings.TrimSpace(h.Unreached.Error()), "reach host "+h.Name+": "), 1000))
		switch {
		case fault.Is(h.Unreached, fault.Denied):
			v = v.over("a login that is let in, as root or with sudo").do("do what it says, or correct user, key_file and passwords in the file; ssh USER@%s must work by hand, too", h.Addr)
		case fault.Is(h.Unreached, fault.Invalid):
			v = v.over("a login that is written down right").do("correct the file, or what it names")
		}
		return v
	case h.Facts == nil:
		return fail("it ran no shell; it wrote %q", cut(cmp.Or(h.Noise, h.Stderr, "nothing"), 200)).do("give the user of %s a POSIX shell: chsh -s /bin/sh USER, and no ForceCommand for it in sshd_config", h.Name)
	default:
		return pass("answered in %s", span(h.Received.Sub(h.Sent)))
	}
}

// neededTools are what the installer calls over SSH.
var neededTools = []string{"sh", "cat", "chmod", "chown", "df", "id", "ln", "ls", "mkdir", "mktemp", "mv", "readlink", "rm", "sha256sum", "stat", "sync", "tar"}

func judgeTools(h *Host, _ *Input) verdict {
	var missing []string
	for _, t := range neededTools {
		if !h.Facts.has("tool", t) {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		return fail("missing: %s", strings.Join(missing, " ")).do("install %s on %s (packages coreutils, tar)", strings.Join(missing, ", "), h.Name)
	}
	return pass("all there")
}

func judgeInstallerClock(h *Host, _ *Input) verdict {
	first, ok1 := h.Facts.number("now")
	last, ok2 := h.Facts.number("end")
	if !ok1 || !ok2 || h.Sent.IsZero() {
		return unknown("its date shows no nanoseconds")
	}
	// It looked at its clock after it was asked and before its answer came.
	begin, end := time.Unix(0, first), time.Unix(0, last)
	var apart time.Duration
	switch {
	case begin.Before(h.Sent):
		apart = begin.Sub(h.Sent.Round(0))
	case end.After(h.Received):
		apart = end.Sub(h.Received.Round(0))
	}
	if apart.Abs() > installerSkew {
		return fail("%s", ahead(apart))
	}
	if apart == 0 {
		return pass("the same")
	}
	return pass("%s", ahead(apart))
}

// ahead says in words how far a clock is off.
func ahead(d time.Duration) string {
	if d < 0 {
		return span(-d) + " behind"
	}
	return span(d) + " ahead"
}

// cut returns at most n bytes of s.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
