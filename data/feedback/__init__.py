"""What was served and what the users then did: kept, joined, read by features at once, exported as day partitions."""
