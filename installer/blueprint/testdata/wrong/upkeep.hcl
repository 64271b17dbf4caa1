cluster "demo" {}
provider "local" {}
node_group "master" {}
node_group "agent" {}
preflight {
  ignore = {
    "Swap Space" = "we know"
    "swap"       = " "
    "swap"       = "twice"
  }
  skip = true
}
upgrade {
  max_unavailable = 0
  drain           = "maybe"
  window          = "weekends"
}
upgrade {}
backup {
  every      = "10s"
  keep       = 1.5
  dir        = "backups"
  recipients = ["AGE-SECRET-KEY-1QQQ", "me"]
  s3 {
    endpoint = "ftp://x"
    bucket   = "a/b"
  }
}
