# A cluster on machines of your own: any Linux with systemd that you can log in
# to. Nothing has to be installed on them. Write your addresses, then run
#
#   dcos-install preflight   to see what would stop an install, with the fix
#   dcos-install plan        to see what would be done
#   dcos-install apply       to do it

cluster "my-cluster" {
  # The administrator. A password is generated and shown once; to choose your
  # own, declare a variable with sensitive = true, set it in the environment as
  # DCOS_VAR_admin_password, and write admin_password = var.admin_password.
  admin_user = "admin"

  # Where names outside the cluster are looked up. Without any, each host asks
  # the resolvers that it has now.
  # resolvers = ["192.0.2.53"]
}

provider "onprem" {
  # How to log in to every machine, unless one says otherwise. The user is root
  # or may use sudo.
  user     = "root"
  key_file = "~/.ssh/id_ed25519"

  # Instead of key_file: agent = true for the keys of your SSH agent, or
  # password = var.ssh_password. If sudo asks for a password:
  # sudo_password = var.sudo_password. Declare both with sensitive = true.

  # Machines must be known: their keys are in this file (ssh-keyscan, or log in
  # once by hand). To take over keys that are not known yet, and be shown them:
  # trust_on_first_use = true
  known_hosts = "~/.ssh/known_hosts"

  # How many machines are worked on at once.
  parallel = 20

  # If they are reached through another machine only.
  # bastion {
  #   address = "jump.example.com"
  #   user    = "me"
  # }
}

# 1, 3 or 5: three survive the loss of one, five the loss of two. A name is
# what a machine is in plans; to replace a machine, give its name another
# address. Addresses are those that hosts use among each other.
node_group "master" {
  host "m1" {
    address = "10.0.0.11"

    # What may differ: where and how to log in.
    # ssh_address = "m1.example.com"
    # port        = 2222
    # user        = "admin"
    # key_file    = "~/.ssh/m1"
  }
  host "m2" {
    address = "10.0.0.12"
  }
  host "m3" {
    address = "10.0.0.13"
  }
}

node_group "agent" {
  # In short.
  hosts = {
    a1 = "10.0.0.21"
    a2 = "10.0.0.22"
  }

  # Constraints of apps may name these.
  attributes = {
    rack = "r1"
  }
}

# Public agents run what the outside may reach.
node_group "public_agent" {
  host "p1" {
    address = "10.0.0.31"

    # What to offer of it. Without these: what it has, less a little.
    # cpus   = 4
    # memory = "8GiB"
    # disk   = "100GiB"
  }
}

# Checks that do not count, by their ids, each with a reason.
# preflight {
#   ignore = {
#     "swap" = "the machines have 512 GiB"
#   }
# }

# How changes go through agents that work. Containers live on while the agent of
# their host is restarted, so nothing has to be moved away.
upgrade {
  max_unavailable = 1
  # drain  = true
  # window = "Sat,Sun 02:00-06:00"
}

# The control plane, encrypted; dcos-install restore needs the installer's state.
backup {
  every = "24h"
  keep  = 7
  dir   = "/var/backups/dcos" # on every master

  # Or in a store that speaks S3, instead of dir.
  # s3 {
  #   endpoint   = "https://s3.example.com"
  #   bucket     = "dcos"
  #   access_key = "…"
  #   secret_key = var.s3_secret_key
  # }
}

output "url" {
  description = "The console, and the API of the cluster."
  value       = cluster.url
}
