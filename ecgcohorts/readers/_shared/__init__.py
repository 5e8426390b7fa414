"""Limits, units, patient facts and HDF5: shared by readers of several formats."""
