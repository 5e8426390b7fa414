"""The `capezoo` command."""
