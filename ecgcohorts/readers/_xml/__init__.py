"""XML files of all makers, read within bounds: the tree, then numbers and samples in it."""
