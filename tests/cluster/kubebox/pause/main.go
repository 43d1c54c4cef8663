// Command pause holds the namespaces of a pod: it does nothing until it is told to end,
// and as their first process it takes in what the others leave behind.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func reap() {
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	fmt.Println("paused") // something for `kubectl logs` where it runs as a container
	for received := range signals {
		if received != syscall.SIGCHLD {
			fmt.Println("ends")
			return
		}
		reap()
	}
}
