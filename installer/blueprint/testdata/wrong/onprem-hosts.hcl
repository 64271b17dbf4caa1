cluster "demo" {}
provider "onprem" {
  key_file = "id"
}
node_group "master" {
  host "m1" { address = "10.0.0.11" }
  host "M_2" { address = "m2.example.com" }
}
node_group "agent" {
  host "a1" { address = "10.0.0.21" }
  host "a1" { address = "10.0.0.22" }
  host "a3" { address = "10.0.0.11" }
  host "a4" {
    addres = "10.0.0.24"
    memory = "lots"
  }
  host "10" { address = "fd00::1" }
  host "a5" {
    address     = "10.0.0.25"
    ssh_address = "jump.example.com:2222"
    port        = 70000
    cpus        = 0
  }
  host "a6" {
    address     = "10.0.0.26"
    ssh_address = "root@a7"
    user        = "no body"
  }
  host "a7" {
    address     = "10.0.0.27"
    ssh_address = "10.0.0.11"
  }
  host "a8" {
    address     = "10.0.0.28"
    ssh_address = "gate"
    port        = 2201
  }
  host "a9" {
    address        = "10.0.0.299"
    ssh_address    = "gate"
    port           = 2201
    price_per_hour = -1
  }
  hosts = {
    b1 = "10.0.0.31"
    b1 = "10.0.0.32"
    b2 = "10.0.0.31"
    b3 = 7
    b4 = null
  }
}
node_group "public_agent" {
  hosts = ["10.0.0.41"]
}
