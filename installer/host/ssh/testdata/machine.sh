#!/bin/sh
# Runs sshd as a machine of its own would: in mount namespaces of its own, with
# its own /etc, /opt, /run and /var/lib, and a systemctl that only tells what
# it was told. Arguments: folder of the test, port.
set -eu
dir=$1 port=$2
mount --make-rprivate /
mkdir -p "$dir/upper" && mount -t tmpfs -o mode=755 tmpfs "$dir/upper"
for d in etc; do
  mkdir -p "$dir/upper/$d" "$dir/upper/$d.work"
  mount -t overlay -o "lowerdir=/$d,upperdir=$dir/upper/$d,workdir=$dir/upper/$d.work" overlay "/$d"
done
mount -t tmpfs -o mode=755,size=64m tmpfs /opt
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/sshd /run/log/journal
mount --bind "$dir/systemctl" "$(readlink -f "$(command -v systemctl)")"
mkdir -p "$dir/home"
for u in plain trusted asked; do
  useradd -M -d "$dir/home" -s /bin/bash "$u"
  echo "$u:pw-$u" | chpasswd
done
rm -f /etc/sudoers.d/*
printf 'root ALL=(ALL:ALL) ALL\ntrusted ALL=(ALL) NOPASSWD: ALL\nasked ALL=(ALL) ALL\n' > /etc/sudoers
chmod 440 /etc/sudoers
# A login script that talks is common.
echo 'echo welcome; echo really' > "$dir/home/.bashrc"
cat > "$dir/sshd_config" <<EOF
Port $port
ListenAddress 127.0.0.1
HostKey $dir/host_ed25519
HostKey $dir/host_rsa
AuthorizedKeysFile $dir/authorized_keys
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication yes
MaxSessions ${MAX_SESSIONS:-10}
PidFile none
EOF
exec /usr/sbin/sshd -D -e -f "$dir/sshd_config"
