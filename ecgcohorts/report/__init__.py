"""What a person looks at: paper-style ECGs, table 1, and self-contained HTML pages."""
