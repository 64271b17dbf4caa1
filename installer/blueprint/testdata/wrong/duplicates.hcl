variable "n" { default = 1 }
variable "n" { default = 2 }
locals { x = 1 }
locals { x = 2 }
cluster "a" {}
cluster "b" {}
provider "local" {}
provider "local" {}
node_group "master" {}
node_group "master" {}
node_group "agent" {}
output "o" { value = 1 }
output "o" { value = 2 }
