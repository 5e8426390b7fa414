"""The commands of `ecgcohorts`, a file for a family (plug-ins of this kind). Heavy imports stand in the functions."""
