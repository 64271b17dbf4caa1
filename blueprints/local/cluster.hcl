# A small datacenter on this machine: see README.md.

variable "masters" {
  type        = number
  description = "1, 3 or 5: how many machines decide. Three survive the loss of one."
  default     = 1
}

variable "agents" {
  type        = number
  description = "How many machines run apps."
  default     = 2
}

variable "public_agents" {
  type        = number
  description = "How many machines run what the outside may reach."
  default     = 1
}

variable "agent_memory" {
  type        = string
  description = "Memory of each agent; what its daemons need is kept back."
  default     = "2GiB"
}

variable "range" {
  type        = string
  description = "Addresses of the hosts. Must not be in use around here."
  default     = "198.18.0.0/16"
}

variable "uplink" {
  type        = bool
  description = "Whether hosts reach the outside through this machine."
  default     = false
}

variable "resolvers" {
  type        = list(string)
  description = "DNS servers for names outside the cluster."
  default     = []
}

cluster "local" {
  resolvers = var.resolvers
}

provider "local" {
  range  = var.range
  uplink = var.uplink
}

node_group "master" {
  count  = var.masters
  cpus   = 1
  memory = "1GiB"
  disk   = "4GiB"
}

node_group "agent" {
  count  = var.agents
  cpus   = 2
  memory = var.agent_memory
  disk   = "8GiB"

  attributes = {
    rack = "r${count.index % 2}"
  }
}

node_group "public_agent" {
  count  = var.public_agents
  cpus   = 1
  memory = "1GiB"
  disk   = "8GiB"
}

output "url" {
  description = "The web page and the API."
  value       = cluster.url
}

output "public" {
  description = "Where the outside reaches apps."
  value       = [for name, h in hosts : h.address if h.role == "public_agent"]
}
