// KEDA's own Kafka scaler, asked by hand, for `make deploy-check`: the one argument is a trigger's
// metadata as JSON, each line on stdin is a poll, and each poll prints the metric and whether it is
// active. deploy/check/scaling.py puts KEDA's two files beside this one.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
)

func main() {
	metadata := map[string]string{}
	if err := json.Unmarshal([]byte(os.Args[1]), &metadata); err != nil {
		fail(err)
	}
	ctx := context.Background()
	scaler, err := NewKafkaScaler(ctx, &scalersconfig.ScalerConfig{TriggerMetadata: metadata})
	if err != nil {
		fail(err)
	}
	polls := bufio.NewScanner(os.Stdin)
	for polls.Scan() {
		values, active, err := scaler.GetMetricsAndActivity(ctx, "lag")
		if err != nil {
			fail(err)
		}
		fmt.Println(values[0].Value.AsApproximateFloat64(), active)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
