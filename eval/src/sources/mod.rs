//! Sources: what registries know, the lock, and the bytes.
