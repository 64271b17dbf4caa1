cluster "demo" {}
provider "local" {}
node_group "master" {}
