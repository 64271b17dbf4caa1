# A small datacenter on machines of your own: see README.md.

variable "master" {
  type        = string
  description = "Address of the machine that decides."
  default     = "10.0.0.11"
}

variable "agents" {
  type        = map(string)
  description = "Machines that run apps: address by name."
  default = {
    a1 = "10.0.0.21"
    a2 = "10.0.0.22"
  }
}

variable "public_agents" {
  type        = map(string)
  description = "Machines that run what the outside may reach."
  default = {
    p1 = "10.0.0.31"
  }
}

variable "user" {
  type        = string
  description = "Who logs in to every machine. If it is not root, it may use sudo without a password."
  default     = "root"
}

variable "key_file" {
  type        = string
  description = "The private key that lets this user in."
  default     = "~/.ssh/id_ed25519"
}

cluster "onprem" {}

provider "onprem" {
  user     = var.user
  key_file = var.key_file
}

node_group "master" {
  hosts = { m1 = var.master }
}

node_group "agent" {
  hosts = var.agents
}

node_group "public_agent" {
  hosts = var.public_agents
}

output "url" {
  description = "The web page and the API."
  value       = cluster.url
}

output "public" {
  description = "Where the outside reaches apps."
  value       = [for name, h in hosts : h.address if h.role == "public_agent"]
}
