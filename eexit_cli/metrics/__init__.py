"""What is measured: task quality, exit depth, latency, FLOPs."""
