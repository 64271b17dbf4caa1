variable "agents" {
  type    = number
  default = 9
  validation {
    condition     = var.agents <= 5
    error_message = "This laptop has room for five agents, not ${var.agents}."
  }
}
variable "token" {
  type      = string
  sensitive = true
  default   = "abcdefgh-secret"
  validation {
    condition     = strlen(var.token) == 4
    error_message = "Not four: ${var.token}"
  }
}
variable "half" {
  validation {
    condition = true
  }
  default = 1
}
variable "required" {
  type = string
}
variable "secret_required" {
  type      = string
  sensitive = true
}
cluster "demo" {}
provider "local" {}
node_group "master" {}
node_group "agent" {}
