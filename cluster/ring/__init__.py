"""The ring: which shard a key is in, which nodes a shard is on, and how it gets there. Pure."""
