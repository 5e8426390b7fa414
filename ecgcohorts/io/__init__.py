"""Files and buckets: durable writes, globs, texts."""
