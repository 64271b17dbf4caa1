# A datacenter on this machine that survives the loss of a master: see README.md.

variable "agents" {
  type        = number
  description = "How many machines run apps."
  default     = 3
}

cluster "local-ha" {}

provider "local" {
  range = "198.19.0.0/24"
}

node_group "master" {
  count  = 3
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}

node_group "agent" {
  count  = var.agents
  cpus   = 1
  memory = "2GiB"
  disk   = "8GiB"

  attributes = {
    rack = "r${count.index % 3}"
  }
}

node_group "public_agent" {
  count  = 1
  cpus   = 1
  memory = "1GiB"
  disk   = "8GiB"
}

output "url" {
  description = "The web page and the API."
  value       = cluster.url
}

output "masters" {
  description = "Each of them serves the API."
  value       = cluster.masters
}
