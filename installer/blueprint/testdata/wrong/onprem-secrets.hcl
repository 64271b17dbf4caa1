variable "key" {
  default   = "/secret/place"
  sensitive = true
}
cluster "demo" {}
provider "onprem" {
  user          = "root"
  key_file      = var.key
  password      = "in-the-file"
  sudo_password = ""
}
node_group "master" {
  hosts = { m1 = var.key }
}
backup {
  s3 {
    endpoint   = "s3.example.com"
    bucket     = var.key
    access_key = var.key
    secret_key = "also-in-the-file"
  }
}
