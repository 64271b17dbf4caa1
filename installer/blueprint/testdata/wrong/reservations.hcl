cluster "demo" {}
provider "local" {}
node_group "master" {
  reservations = { db = "cpus:1" }
}
node_group "agent" {
  cpus   = 2
  memory = "4GiB"
  reservations = {
    "kafka-role" = "cpus:1.5;mem:4096"
    "db role"    = "cpus:1"
    "hdfs"       = "cpus"
    "nothing"    = ""
    "spark"      = "cpus:1;disk(x):5"
    "web"        = "cpus:1"
  }
}
