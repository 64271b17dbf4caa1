# A datacenter on machines of your own that survives the loss of a master: see
# README.md.

variable "sudo_password" {
  type        = string
  description = "Of the user on every machine. Leave it out if sudo asks for none."
  sensitive   = true
  default     = null
}

cluster "onprem-ha" {}

provider "onprem" {
  user          = "admin"
  agent         = true
  sudo_password = var.sudo_password
  parallel      = 20

  bastion {
    address = "jump.example.com"
  }
}

# One in each rack.
node_group "master" {
  host "m1" {
    address = "10.0.1.11"
  }
  host "m2" {
    address = "10.0.2.11"
  }
  host "m3" {
    address = "10.0.3.11"
  }
}

node_group "agent" {
  hosts = {
    a1 = "10.0.1.21"
    a2 = "10.0.2.21"
    a3 = "10.0.3.21"
    a4 = "10.0.1.22"
    a5 = "10.0.2.22"
    a6 = "10.0.3.22"
  }

  # The third number of an address is the rack.
  attributes = {
    rack = "r${split(".", host.address)[2]}"
  }
}

node_group "public_agent" {
  host "p1" {
    address = "10.0.1.31"
  }
  host "p2" {
    address = "10.0.2.31"
  }
}

upgrade {
  max_unavailable = 2
  window          = "Sat,Sun 02:00-06:00"
}

backup {
  every = "12h"
  keep  = 14
  dir   = "/var/backups/dcos"
}

output "url" {
  description = "The web page and the API."
  value       = cluster.url
}

output "masters" {
  description = "Each of them serves the API."
  value       = cluster.masters
}
