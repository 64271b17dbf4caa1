package catalog

import "context"

// FinishSDK is one look at services that uninstall themselves.
func (c *Catalog) FinishSDK(ctx context.Context) (int, error) { return c.installer.Finish(ctx) }
