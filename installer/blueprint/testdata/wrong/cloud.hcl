cluster "demo" {}
provider "aws" {
  region = "eu-central-1"
}
node_group "master" {}
node_group "agent" {}
