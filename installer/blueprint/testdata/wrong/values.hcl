cluster "My Cluster" {
  admin_user     = "no spaces please"
  admin_password = "short"
  resolvers      = ["dns.example", "9.9.9.9", "192.0.2.1:5353"]
}
provider "local" {
  range  = "198.18.0.1"
  uplink = "maybe"
}
node_group "master" {
  count  = 1.5
  memory = "1024"
  disk   = "lots"
  cpus   = 0
}
node_group "agent" {
  count      = -1
  memory     = 2
  disk       = "1MiB"
  cpus       = "four"
  attributes = { "a:b" = "x", ok = "y;z" }
}
node_group "public_agent" {
  memory     = "64MiB"
  attributes = "rack=1"
}
