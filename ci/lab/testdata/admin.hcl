cluster "dct2lab" {}

provider "onprem" {
  user        = "admin"
  key_file    = "/var/lib/dcos-lab/dct2lab/key"
  known_hosts = "/var/lib/dcos-lab/dct2lab/known_hosts"
}

node_group "master" {
  host "h1" {
    address = "198.19.20.11"
  }
  host "h2" {
    address = "198.19.20.12"
  }
  host "h3" {
    address = "198.19.20.13"
  }
}

node_group "agent" {
  host "h4" {
    address = "198.19.20.14"
    memory  = "1024MiB"
  }
}

node_group "public_agent" {
  host "h5" {
    address = "198.19.20.15"
    memory  = "1024MiB"
    cpus    = 0.5
  }
}
