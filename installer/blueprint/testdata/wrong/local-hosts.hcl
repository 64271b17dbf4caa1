cluster "demo" {}
provider "local" {}
node_group "master" {
  host "m1" { address = "10.0.0.11" }
  host "m2" { address = "10.0.0.12" }
  host "m3" { address = "10.0.0.13" }
}
node_group "agent" {
  hosts = { a1 = "10.0.0.21" }
}
