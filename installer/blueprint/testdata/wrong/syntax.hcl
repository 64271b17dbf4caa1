cluster "demo" {
  release = "0.1.0
}
