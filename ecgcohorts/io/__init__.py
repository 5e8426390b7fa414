"""Files and buckets: durable writes, regular files, globs, texts."""
