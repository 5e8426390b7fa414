"""XML files of all makers: read within bounds, digits and values."""
