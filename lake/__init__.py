"""Storage, bitemporal algebra, snapshots and the SDK."""
