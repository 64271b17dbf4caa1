variable "sudo" {
  type      = string
  sensitive = true
}
variable "s3_secret" {
  type      = string
  sensitive = true
}
variable "workers" {
  type = map(string)
  default = {
    a10 = "10.0.0.30"
    a2  = "10.0.0.22"
  }
}
cluster "demo" {}
provider "onprem" {
  user               = "admin"
  key_file           = "keys/id_ed25519"
  sudo_password      = var.sudo
  trust_on_first_use = true
  parallel           = 40
  timeout            = "15s"
  bastion {
    address = "jump.example.com"
    port    = 2222
    agent   = true
  }
}
node_group "master" {
  host "m1" { address = "10.0.0.11" }
  host "m2" {
    address     = "10.0.0.12"
    ssh_address = "m2.example.com"
    port        = 2022
    user        = "root"
    key_file    = "~/.ssh/m2"
  }
  hosts = { "m3.dc2" = "10.0.1.13" }
}
node_group "agent" {
  attributes = { rack = "r-${host.name}", zone = "z1" }
  host "a1" {
    address        = "10.0.0.21"
    attributes     = { rack = "r1" }
    reservations   = { "kafka-role" = "cpus:2;mem:2048;ports:[9092-9094]" }
    cpus           = 4
    memory         = "6GiB"
    disk           = "100GiB"
    price_per_hour = 0.25
  }
  hosts = var.workers
}
node_group "public_agent" {
  hosts = { p1 = "10.0.0.31" }
}
preflight {
  ignore = {
    "swap"         = "the machines have 512 GiB"
    "net.latency"  = "two sites, measured"
  }
}
upgrade {
  max_unavailable = 2
  drain           = true
  window          = "Sat,Sun 02:00-06:00 UTC"
}
backup {
  every = "2d"
  keep  = 14
  s3 {
    endpoint   = "https://s3.example.com:9000"
    bucket     = "dcos"
    prefix     = "demo"
    access_key = "AKIA0"
    secret_key = var.s3_secret
    region     = "eu-central-1"
  }
}
