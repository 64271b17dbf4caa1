variable "size" { default = "2GiB" }
locals { big = "4GiB" }
cluster "demo" {
  release = latest
}
provider "local" {
  range = cidr
}
node_group "master" {
  memory = size
  disk   = big
  count  = count.index + 1
}
node_group "agent" {
  memory = upperr("2gib")
  cpus   = max()
  attributes = { rack = cluster.nmae }
}
