"""The pretraining loop, and what a run watches and writes."""
