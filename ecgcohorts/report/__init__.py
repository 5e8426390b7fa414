"""Reports for people: paper-style ECGs, table 1, charts and self-contained HTML pages."""
