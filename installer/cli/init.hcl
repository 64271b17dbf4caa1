# A cluster on this machine: hosts are made of namespaces and control groups,
# each with an address of its own. Change what you like, then run
#
#   dcos-install plan     to see what would be done
#   dcos-install apply    to do it (as root)

variable "agents" {
  type        = number
  description = "How many agents run apps. Adding one later changes no other host."
  default     = 2
}

cluster "my-cluster" {
  # The administrator. A password is generated and shown once; to choose your
  # own, declare a variable with sensitive = true, set it in the environment as
  # DCOS_VAR_admin_password, and write admin_password = var.admin_password.
  admin_user = "admin"

  # Where names outside the cluster are looked up. Without any, only names of
  # the cluster resolve.
  # resolvers = ["192.0.2.53"]
}

provider "local" {
  # Addresses of the hosts. The first one is the gateway, on this machine.
  range = "198.18.0.0/16"

  # Let hosts reach the outside through this machine (NAT), to pull images.
  # uplink = true
}

# 1, 3 or 5: three survive the loss of one, five the loss of two.
node_group "master" {
  count  = 1
  cpus   = 1
  memory = "1GiB"
  disk   = "10GiB"
}

node_group "agent" {
  count  = var.agents
  cpus   = 1
  memory = "2GiB"
  disk   = "10GiB"

  # Constraints of apps may name these.
  attributes = {
    rack = "r${count.index % 2}"
  }
}

# Public agents run what the outside may reach.
node_group "public_agent" {
  count  = 1
  cpus   = 1
  memory = "1GiB"
}

output "url" {
  description = "The console, and the API of the cluster."
  value       = cluster.url
}
