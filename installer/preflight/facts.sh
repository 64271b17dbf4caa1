# Facts about a host, one "key value..." a line. It needs a shell and
# coreutils, changes nothing, and asks nobody but the kernel, files and the
# host's own init. Everything before the first line is somebody else's noise.
echo 'dcos-facts 1'
LC_ALL=C export LC_ALL
r() { read -r v 2>/dev/null < "$2" && echo "$1 $v"; }
has() { command -v "$1" >/dev/null 2>&1; }
# Nothing that is asked may keep the answer waiting.
if has timeout; then in2s() { timeout 2 "$@" 2>/dev/null; }; else in2s() { "$@" 2>/dev/null; }; fi

# Who and what.
date '+now %s%N%nzone %z %Z'
echo "uid $(id -u)"
echo "uname $(uname -rm)"
r hostname /proc/sys/kernel/hostname
r machine-id /etc/machine-id
r boot-id /proc/sys/kernel/random/boot_id
r init /proc/1/comm
[ -r /etc/os-release ] && ( . /etc/os-release; echo "os $ID ${VERSION_ID:-rolling}" )
for f in /etc/ssh/ssh_host_*_key.pub; do [ -r "$f" ] && read -r t k _ < "$f" && echo "host-key $t $k"; done
if has systemctl; then
  in2s systemctl --version | { read -r _ v _ && echo "systemd $v"; }
  echo "systemd-state $(in2s systemctl is-system-running)"
fi
for t in cat cp chmod chown cut date df du find getent grep head id ip kill ln ls mkdir mktemp modprobe mv nft readlink rm rmdir sed sha256sum sh sort stat sync tail tar test timeout tr uname xargs zstd gzip; do
  has $t && echo "tool $t"
done

# Whether its locale is there.
for f in /etc/locale.conf /etc/default/locale; do
  [ -r $f ] || continue
  while IFS='=' read -r k v; do
    [ "$k" = LANG ] || continue
    v=${v#\"}; v=${v%\"}
    if has locale && LC_ALL=$v locale charmap 2>&1 >/dev/null | grep -q .; then echo "locale missing $v"; else echo "locale there $v"; fi
  done < $f
  break
done

# Processors, memory, swap, cgroups.
echo "cpus $(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc)"
while read -r k v _; do
  case $k in MemTotal:) echo "memory $v";; MemAvailable:) echo "memory-available $v";; esac
done < /proc/meminfo
{ read -r _; while read -r dev _ size _; do echo "swap $dev $size"; done; } < /proc/swaps 2>/dev/null
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  echo "cgroup v2"
  for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "controller $c"; done
else
  [ -e /sys/fs/cgroup/unified/cgroup.controllers ] && echo "cgroup hybrid" || echo "cgroup v1"
  while read -r c _ _ on; do [ "$on" = 1 ] && echo "controller $c"; done < /proc/cgroups
fi

# The kernel: file systems, modules, name spaces, parameters.
while read -r a b; do case ${b:-$a} in overlay|xfs|ext4|btrfs) echo "filesystem ${b:-$a}";; esac; done < /proc/filesystems
rel=$(uname -r)
for d in /lib/modules/"$rel" /usr/lib/modules/"$rel"; do
  [ -r "$d/modules.dep" ] || continue
  echo "modules $d"
  grep -hoE '/(overlay|veth|bridge|nf_tables|nf_nat|nft_chain_nat|nf_conntrack|vxlan|br_netfilter)\.ko' "$d/modules.dep" "$d/modules.builtin" 2>/dev/null |
    while read -r m; do m=${m#/}; echo "module ${m%.ko}"; done
  break
done
[ -d "/lib/modules/$rel" ] || for d in /lib/modules/*; do [ -d "$d/kernel" ] && echo "modules-of ${d##*/}"; done
for m in overlay veth bridge nf_tables nf_nat nft_chain_nat nf_conntrack vxlan br_netfilter apparmor; do [ -d /sys/module/$m ] && echo "module $m"; done
for n in mnt pid net ipc uts cgroup user; do [ -e /proc/self/ns/$n ] && echo "namespace $n"; done
r seccomp /proc/sys/kernel/seccomp/actions_avail
# With grep, as a shell reads byte by byte, and these end after the first read.
cd /proc/sys && grep -s '' fs/file-max fs/nr_open fs/inotify/max_user_instances fs/inotify/max_user_watches kernel/pid_max kernel/threads-max \
  kernel/random/entropy_avail net/ipv4/ip_forward net/ipv4/conf/all/rp_filter net/ipv4/conf/default/rp_filter \
  net/netfilter/nf_conntrack_max net/bridge/bridge-nf-call-iptables user/max_user_namespaces user/max_mnt_namespaces \
  user/max_net_namespaces user/max_pid_namespaces user/max_ipc_namespaces user/max_uts_namespaces |
  while IFS=: read -r k v; do echo "sysctl $k $v"; done
cd /
grep -hsE '^[[:space:]]*net[./]ipv4[./](ip_forward|conf[./](all|default)[./](forwarding))[[:space:]]*=[[:space:]]*0' /etc/sysctl.conf /etc/sysctl.d/*.conf |
  while read -r l; do echo "sysctl-file $l"; done

[ -n "$PROBE" ] && [ -x "$PROBE" ] && echo "probe $PROBE"

# Disks: where what goes, on the nearest directory that is there.
paths='/opt/dcos /var/lib/dcos /var/log/dcos /etc/dcos /tmp /var/tmp'
dirs=
for p in $paths; do
  while [ ! -d "$p" ]; do p=${p%/*}; p=${p:-/}; done
  dirs="$dirs $p"
done
{ stat -f -c '%a %S %d %c' $dirs; stat -c '%d %m' $dirs; } 2>/dev/null | {
  for p in $paths; do read -r free; all="$all$free|"; done
  for p in $paths; do
    set -- $dirs; d=$1; shift; dirs=$*
    read -r dev mp; o=
    while read -r _ at fs opts _; do [ "$at" = "$mp" ] && o="$fs $opts"; done < /proc/mounts
    echo "disk $p $d ${all%%|*} $dev ${mp:-?} $o"
    all=${all#*|}
  done
}

# Network: links, addresses, routes, who listens where.
for d in /sys/class/net/*; do
  [ -e "$d/mtu" ] || continue
  read -r mac < "$d/address"; read -r mtu < "$d/mtu"; read -r st < "$d/operstate"
  echo "link ${d##*/} ${mac:--} $mtu $st"
done 2>/dev/null
while read -r a b c; do
  case $a in '|--') last=$b;; /32) [ "$b $c" = 'host LOCAL' ] && echo "address $last";; esac
done < /proc/net/fib_trie 2>/dev/null
{ read -r _; while read -r dev dst _ _ _ _ _ mask _; do echo "route $dev $dst $mask"; done; } < /proc/net/route 2>/dev/null
inodes=' '
for f in tcp tcp6 udp udp6; do
  [ -r /proc/net/$f ] || continue
  while read -r _ local _ st _ _ _ _ _ inode _; do
    case $f$st in tcp*0A|udp*07) ;; *) continue;; esac
    case " $PORTS " in *" ${local#*:} "*) ;; *) continue;; esac
    echo "listen $f $local $inode"
    inodes="$inodes$inode "
  done < /proc/net/$f
done
if [ "$inodes" != ' ' ]; then
  in2s ls -l /proc/[0-9]*/fd | while read -r l; do
    case $l in
    /proc/*) p=${l#/proc/}; p=${p%%/*};;
    *'socket:['*)
      i=${l##*'socket:['}; i=${i%%]*}
      case $inodes in *" $i "*) c=; read -r c < "/proc/$p/comm"; echo "socket $i $p $c";; esac;;
    esac
  done
fi

# Firewalls and mandatory access control.
has systemctl && in2s systemctl is-active firewalld ufw | {
  read -r s && [ "$s" = active ] && echo 'firewall firewalld'
  read -r s && [ "$s" = active ] && echo 'firewall ufw'
}
if has nft; then
  in2s nft list chains | while read -r l; do
    case $l in table*) t=${l#table }; t=${t% \{};; chain*) c=${l#chain }; c=${c% \{};; *hook*policy*drop*) echo "chain-drops ${l#*hook }|$t $c";; esac
  done
fi
if [ -s /proc/net/ip_tables_names ] && has iptables-legacy; then
  in2s iptables-legacy -S | while read -r o c p _; do [ "$o $p" = '-P DROP' ] && echo "chain-drops $c|iptables-legacy filter $c"; done
fi
r selinux /sys/fs/selinux/enforce
[ -r /etc/selinux/config ] && while IFS='=' read -r k v; do [ "$k" = SELINUXTYPE ] && echo "selinux-type $v"; done < /etc/selinux/config
r apparmor /sys/module/apparmor/parameters/enabled
grep -hs -F /opt/dcos /sys/kernel/security/apparmor/profiles | while read -r l; do echo "apparmor-profile $l"; done

# Names.
while read -r l; do
  case $l in hosts:*myhostname*) echo 'resolves-self nss-myhostname';; esac
done < /etc/nsswitch.conf 2>/dev/null
read -r me < /proc/sys/kernel/hostname
while read -r a names; do
  case $a in ''|'#'*) continue;; esac
  for n in $names; do case $n in '#'*) break;; "$me") echo "resolves-self $a";; esac; done
done < /etc/hosts 2>/dev/null
if [ -L /etc/resolv.conf ]; then echo "resolv-conf link $(readlink -f /etc/resolv.conf)"
elif [ -e /etc/resolv.conf ]; then read -r l < /etc/resolv.conf; echo "resolv-conf file $l"
else echo 'resolv-conf none'; fi

# What is there already.
for p in /opt/mesosphere /etc/mesosphere /opt/dcos /etc/dcos /etc/dcos/master.json /etc/dcos/agent.json /var/lib/dcos/master /var/lib/dcos/agent \
  /var/lib/dcos/containerd /var/lib/dcos/bootstrap.json /etc/systemd/system/dcos-master.service /etc/systemd/system/dcos-agent.service \
  /run/reboot-required /var/run/reboot-required /run/reboot-needed /etc/dhcp/dhclient-enter-hooks.d; do
  [ -e $p ] && echo "path $p"
done
[ -r /var/lib/dcos/bootstrap.json ] && {
  sed -n 's/^ *"owner": *"\([^"]*\)".*/record-owner \1/p;s/^ *"release": *"\([^"]*\)".*/record-release \1/p' /var/lib/dcos/bootstrap.json
}
for f in /etc/dcos/master.json /etc/dcos/agent.json; do
  [ -r $f ] && sed -n '/"cluster"/,/}/{s/^ *"id": *"\([^"]*\)".*/cluster-id \1/p;s/^ *"release": *"\([^"]*\)".*/cluster-release \1/p;}' $f &&
    sed -n '/"cluster"/,/"masters"/s/^ *"name": *"\([^"]*\)".*/cluster-name \1/p' $f
done
for d in /proc/[0-9]*; do
  read -r c < "$d/comm" || continue
  case $c in
  dockerd|containerd|crio|podman|kubelet|k3s*|rke2*|mesos-master|mesos-slave|mesos-agent|zookeeper|marathon|nomad|etcd|java|systemd-resolve|NetworkManager|dhclient|dhcpcd|resolvconf|dnsmasq|chronyd|ntpd|systemd-timesyn|dcosd) ;;
  *) continue;;
  esac
  # Not what runs in a container.
  [ "$d/ns/pid" -ef /proc/self/ns/pid ] || continue
  if [ "$c" = java ]; then
    case "$(tr '\0' ' ' < "$d/cmdline")" in
    *QuorumPeerMain*) c=zookeeper;; *mesosphere.marathon*) c=marathon;; *) continue;;
    esac
  fi
  echo "process $c ${d#/proc/} $(readlink "$d/exe")"
done 2>/dev/null
date '+end %s%N'
exit 0
