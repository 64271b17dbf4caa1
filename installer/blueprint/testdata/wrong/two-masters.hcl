cluster "demo" {}
provider "local" {}
node_group "master" { count = 2 }
node_group "agent" { count = 4 }
