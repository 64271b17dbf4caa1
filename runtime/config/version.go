package config

// Version is the release this program was built for; the linker sets it.
var Version = "0.0.0-dev"
