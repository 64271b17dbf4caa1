locals {
  a = local.b
  b = "${local.c}-x"
  c = local.a
  d = local.d
  e = local.missing
  f = var.missing
}
cluster "demo" {}
provider "local" {}
node_group "master" {}
node_group "agent" {}
