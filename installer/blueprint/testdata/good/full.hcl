variable "agents" {
  type        = number
  description = "How many agents."
  default     = 2
  validation {
    condition     = var.agents >= 0
    error_message = "Not negative."
  }
}
variable "password" {
  type      = string
  sensitive = true
}
variable "tags" {
  type    = map(string)
  default = {}
}
variable "shape" {
  type = object({ cpus = number, memory = optional(string, "3GiB") })
  default = { cpus = 2 }
}
locals {
  name  = lower(local.upper)
  upper = format("%s-%d", "DC", var.agents)
}
cluster "demo" {
  release        = "0.1.0"
  admin_user     = local.name
  admin_password = var.password
  resolvers      = ["9.9.9.9", "192.0.2.1:5353"]
}
provider "local" {
  range  = "198.18.4.0/24"
  uplink = true
  dir    = "/srv/dcos"
}
node_group "master" {
  count = 3
}
node_group "agent" {
  count      = var.agents
  cpus       = var.shape.cpus
  memory     = var.shape.memory
  disk       = count.index == 0 ? "20GiB" : null
  attributes = merge(var.tags, { rack = "r${count.index % 2}", cluster = cluster.name })
}
node_group "public_agent" {
  count = length("ab") - 2
}
output "url" {
  description = "The console."
  value       = cluster.url
}
output "first" {
  value = hosts["agent-1"].address
}
output "secret" {
  value     = var.password
  sensitive = true
}
output "name" {
  value = try(cluster.name, "none")
}
