"""Batches for one framework each. Nothing imports these modules but who asks for one."""
