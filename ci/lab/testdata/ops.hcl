# In the environment: DCOS_VAR_sudo_password, which is pa$$ word's
variable "sudo_password" {
  type      = string
  sensitive = true
}

cluster "dct2lab" {}

provider "onprem" {
  user        = "ops"
  key_file    = "/var/lib/dcos-lab/dct2lab/key"
  known_hosts = "/var/lib/dcos-lab/dct2lab/known_hosts"

  sudo_password = var.sudo_password
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
