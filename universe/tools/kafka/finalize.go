package main

import (
	"context"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// feature is what brokers of several versions agree to write their metadata in.
const feature = "metadata.version"

// finalize lets the cluster use what all of its brokers can do, after an upgrade
// of all of them. There is no way back to the version before.
func finalize(ctx context.Context, client *kgo.Client, admin *kadm.Client) error {
	brokers, err := admin.ListBrokers(ctx)
	if err != nil {
		return fmt.Errorf("ask for the brokers: %w", err)
	}
	lowest := int16(0)
	for _, id := range brokers.NodeIDs() {
		level, err := supported(ctx, client, id)
		if err != nil {
			return err
		}
		if lowest == 0 || level < lowest {
			lowest = level
		}
	}
	req := kmsg.NewPtrUpdateFeaturesRequest()
	req.TimeoutMillis = 60_000
	update := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
	update.Feature, update.MaxVersionLevel, update.UpgradeType = feature, lowest, 1
	req.FeatureUpdates = append(req.FeatureUpdates, update)
	resp, err := req.RequestWith(ctx, client)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("set %s to %d: %w", feature, lowest, err)
	}
	for _, r := range resp.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("set %s to %d: %w", r.Feature, lowest, err)
		}
	}
	fmt.Fprintf(os.Stderr, "%s is %d\n", feature, lowest)
	return nil
}

// supported is the highest level of the feature that a broker knows.
func supported(ctx context.Context, client *kgo.Client, broker int32) (int16, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "kafkactl", "1"
	raw, err := client.Broker(int(broker)).RetriableRequest(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("ask broker %d for its features: %w", broker, err)
	}
	for _, f := range raw.(*kmsg.ApiVersionsResponse).SupportedFeatures {
		if f.Name == feature {
			return f.MaxVersion, nil
		}
	}
	return 0, fmt.Errorf("broker %d does not know of %s", broker, feature)
}
