cluster "demo" {}
provider "onprem" {}
node_group "master" {
  count = 3
}
node_group "agent" {
  hosts = { a1 = "10.0.0.21" }
  attributes = { index = count.index }
}
node_group "public_agent" {}
