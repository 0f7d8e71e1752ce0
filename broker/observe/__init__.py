"""What a node tells about itself: log lines, metrics, access log, memory."""
