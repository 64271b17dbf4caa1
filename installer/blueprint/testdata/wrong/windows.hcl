cluster "demo" {}
provider "ssh" {}
node_group "master" {}
node_group "agent" {}
upgrade {
  window = "Sa 02:00-06:00"
}
