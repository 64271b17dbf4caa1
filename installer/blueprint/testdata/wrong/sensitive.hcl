variable "password" {
  type      = string
  sensitive = true
  default   = "hunter2-hunter2"
}
variable "pin" {
  type      = number
  sensitive = true
  default   = "hunter2-hunter2"
}
locals {
  derived = "x-${var.password}"
  broken  = parseint(var.password, 10)
  other   = regex("^[0-9]+$", var.password)
}
cluster "demo" {
  release        = var.password
  admin_password = var.password
}
provider "local" {
  dir = "/srv/${local.derived}"
}
node_group "master" {}
node_group "agent" {
  attributes = { secret = var.password }
}
output "p" { value = var.password }
output "q" { value = upper(local.derived) }
