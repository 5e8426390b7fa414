"""From a table of features and a table of labels to a tested answer, and to a predictor that can be applied to new files."""
