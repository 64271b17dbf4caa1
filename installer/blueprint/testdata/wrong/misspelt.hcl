varaible "x" {
  default = 1
}
variable "agents" {
  type    = number
  defualt = 2
}
cluster "demo" {
  relase     = "0.1.0"
  admin_usr  = "admin"
}
provider "lokal" {
  range = "198.18.0.0/24"
}
node_group "workers" {
  count = var.agent
}
node_group "master" {
  memroy = "1GiB"
}
