variable "a" {
  type    = nubmer
  default = 1
}
variable "b" {
  type    = list(string)
  default = { x = 1 }
}
variable "c" {
  default = var.b
}
variable "d" {
  description = var.a
}
cluster demo {}
provider "local" "x" {}
node_group "master" {
  count = [1]
}
node_group "agent" {
  count = "two"
  memory = ["2GiB"]
}
