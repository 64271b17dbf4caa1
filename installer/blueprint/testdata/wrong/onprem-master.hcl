cluster "demo" {}
provider "onprem" {
  agent = true
  range = "10.0.0.0/24"
  keyfile = "id"
  parallel = 0
  timeout = "soon"
  bastion {
    user = "me"
  }
  bastion {
    address = "b"
  }
}
node_group "master" {
  cpus = 2
  hosts = { m1 = "10.0.0.11", m2 = "10.0.0.12" }
}
