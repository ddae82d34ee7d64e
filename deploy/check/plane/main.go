// The control plane of a Kubernetes cluster and its store in one program, for `make deploy-check`:
// the first argument says which of them it is. It has no kubelet, so no pod ever runs.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: plane etcd|apiserver|controllers|scheduler [FLAG]...")
		os.Exit(2)
	}
	name := os.Args[1]
	os.Args = append(os.Args[:1], os.Args[2:]...)
	commands := map[string]func() *cobra.Command{
		"apiserver":   apiserver.NewAPIServerCommand,
		"controllers": controllers.NewControllerManagerCommand,
		"scheduler":   func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	}
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	make, known := commands[name]
	if !known {
		fmt.Fprintln(os.Stderr, "plane: no part of it is named", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(make()))
}
