package main

import "dcos.example/dcos/installer/cli"

// leftovers finds clusters on this machine by name.
func leftovers(o cli.ProviderOptions) (cli.Leftovers, error) {
	if o.Kind != "local" {
		return nil, nil
	}
	return localProvider(o)
}
